"""Documents as a whole: repair of wrongly decoded text, tags and lengths."""

import random
from re import _constants as kinds
from re import _parser as parser

import ftfy
import pytest
from ftfy.badness import BADNESS_RE
from ftfy.chardata import CONTROL_CHARS

from clp_jax.data.filters.document import _SUSPICIOUS, Encoding, MaxLength, MinLength, Tags
from clp_jax.data.samples import Samples
from clp_jax.files import read_json

PLANE = range(0x10000)
SPACES = {c for c in PLANE if chr(c).isspace()}
WORDS = {c for c in PLANE if chr(c).isalnum() or chr(c) == "_"}


def test_mojibake_is_repaired_and_counted(follow):
    good = "Für Größe, Maß und Straße – „schön“ … 10 €"
    texts = [
        good,
        good.encode().decode("cp1252", "replace"),
        "f&uuml;r",
        "f\x00ür",
        "Maß &amp; Art",
    ]
    left, counts = follow(Encoding(), good, "fÃ¼r GrÃ¶ÃŸe", *texts[2:])
    assert left == [good, "für Größe", "für", "für", "Maß & Art"]
    assert counts == {"total": 5, "repaired": 4}


def test_letters_are_composed(follow):
    apart = "Fu\u0308r Gro\u0308\u00dfe, e\u0301v e\u0301s sza\u0301z"
    left, counts = follow(Encoding(), apart, apart.encode().decode("latin-1"), "für", "हिन्दी")
    assert left == [*["Für Größe, év és száz"] * 2, "für", "हिन्दी"]
    assert counts == {"total": 4, "composed": 2, "repaired": 1}


def characters(item) -> set[int] | None:
    """The characters of one place of a regular expression; none if it is no single place."""
    kind, value = item
    match kind:
        case kinds.LITERAL:
            return {value}
        case kinds.NOT_LITERAL:
            return set(PLANE) - {value}
        case kinds.IN:
            found: set[int] = set()
            for inner, what in value:
                match inner:
                    case kinds.LITERAL:
                        found.add(what)
                    case kinds.RANGE:
                        found.update(range(what[0], what[1] + 1))
                    case kinds.CATEGORY:
                        found |= {kinds.CATEGORY_WORD: WORDS, kinds.CATEGORY_SPACE: SPACES}[what]
            return set(PLANE) - found if value[0][0] is kinds.NEGATE else found
    return None


def always_suspicious(branch) -> bool:
    """Whether each text that matches a branch has a character or a pair of `_SUSPICIOUS`."""
    places = [characters(item) for item in branch]
    for first, second in zip(places, [*places[1:], None], strict=True):
        if first and all(_SUSPICIOUS.search(chr(c)) for c in first):
            return True
        if first and second and min(first) > 127 and min(second) > 127:
            harmless = [a + b for a in "äöü" for b in "ß" if ord(a) in first and ord(b) in second]
            if not harmless:
                return True
    return False


def test_everything_that_ftfy_calls_bad_is_suspicious():
    (kind, (_, branches)) = parser.parse(BADNESS_RE.pattern, BADNESS_RE.flags)[0]
    assert kind is kinds.BRANCH
    assert len(branches) > 20
    assert all(map(always_suspicious, branches))


@pytest.mark.parametrize("span", [range(0x80, 0xA0), range(0xD800, 0xE000), CONTROL_CHARS])
def test_all_characters_that_are_replaced_are_suspicious(span):
    assert all(_SUSPICIOUS.search(chr(c)) for c in span)


def test_unsuspicious_text_is_left_as_it_is():
    rng = random.Random(0)
    alphabet = "abc ABC äöüß ÄÖÜ é „“»«–…§€°²½ Ã¼¶Ÿâ€™œ &<; \n\x85\x1b[0m\u0441"
    config = Encoding().config
    texts = ["".join(rng.choices(alphabet, k=rng.randint(1, 8))) for _ in range(20_000)]
    unsuspicious = [text for text in texts if not _SUSPICIOUS.search(text)]
    assert len(unsuspicious) > 2000
    assert [ftfy.fix_text(text, config) for text in unsuspicious] == unsuspicious


@pytest.mark.parametrize("tags", [None, [], ["short_sentences"]])
def test_other_tags_are_kept(follow, tmp_path, tags):
    rule = Tags(["noisy", "footer"], Samples(tmp_path, "tags"))
    left, counts = follow(rule, "Text", tags=tags)
    assert left == ["Text"]
    assert counts["forwarded"] == 1


def test_a_tag_is_the_reason(follow, tmp_path):
    rule = Tags(["noisy", "footer"], Samples(tmp_path, "tags"))
    left, counts = follow(rule, "Text", tags=["tiny", "footer"])
    assert left == []
    assert counts["dropped_footer"] == 1
    (sample,) = read_json(tmp_path / "tags" / "00000.json", list)
    assert sample["reason"] == "footer"


def test_longest(follow, tmp_path):
    left, counts = follow(MaxLength(3, Samples(tmp_path, "max-length")), "", "äöü", "äöüß")
    assert left == ["", "äöü"]
    assert counts["dropped_too long"] == 1


def test_shortest_counts_words_alone(follow, tmp_path):
    left, counts = follow(
        MinLength(3, Samples(tmp_path, "min-length")), "eins, 2 – drei", "a - b !"
    )
    assert left == ["eins, 2 – drei"]
    assert counts["dropped_too short"] == 1
