"""Tags and lengths."""

import pytest

from clp_jax.data.clean.whole import MaxLength, MinLength, Tags
from clp_jax.data.samples import Samples
from clp_jax.files import read_json


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
