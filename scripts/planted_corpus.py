"""What a recipe finds of faults that were planted, and how much good text it harms.

    python scripts/planted_corpus.py --good de/train.jsonl.zst --foreign en/train.jsonl.zst \
        --tests tasks/test.jsonl

Takes documents of good text, leaves most of them as they are, plants a fault of a known kind in
each of the others, copies whole ones and parts of some, follows the recipe step by step and prints
a table: how many of the planted faults of a kind were mended as they should be (recall), and how
many good documents the step that is there for it dropped or changed; these beside the mended ones
give the precision. A second table is of good text alone, ten kinds in six languages (good_text.py):
how many documents all steps of cleaning leave as they are.
"""

import argparse
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import good_text
from datatrove.data import Document

from clp_jax.data.config import (
    CleanSection,
    DecontaminateSection,
    DeduplicateSection,
    ExecutionSection,
    PrepareConfig,
)
from clp_jax.data.dedup import deduplications
from clp_jax.data.execution import run_stages
from clp_jax.data.filters import clean_steps
from clp_jax.data.filters.decontamination import Decontaminate, build_index, normal_words
from clp_jax.data.io.readers import read_documents
from clp_jax.data.samples import Samples
from clp_jax.data.stages import Deduplication, ReadDocuments, Workspace, WriteDocuments

RECIPE = PrepareConfig(
    clean=CleanSection(
        language="de",
        repair_encoding=True,
        boilerplate=True,
        min_words=50,
        quality=True,
        repetition=True,
        mask_personal_data=True,
    ),
    deduplicate=DeduplicateSection(exact=True, near=True, lines=0.05, substrings=200),
)
BOILERPLATE = (
    "Diese Seite verwendet Cookies.",
    "Wir verwenden Cookies, um Inhalte zu personalisieren. Cookies akzeptieren",
    "Bitte aktivieren Sie JavaScript in Ihrem Browser, um diese Seite zu sehen.",
    "Copyright 2022 Verlag Muster. Alle Rechte vorbehalten.",
    "Startseite | Kontakt | Zur Datenschutzerklärung",
    "Jetzt den Newsletter abonnieren und nichts verpassen!",
    "By using this site you agree to our Privacy Policy and Terms of Use.",
)
PERSONAL = (
    ("Fragen an max.muster@web.de bitte.", "Fragen an [email] bitte."),
    ("Tel. 030/1234567 oder +49 171 1234567.", "Tel. [phone] oder [phone]."),
    ("Telefon (06221) 54-2345, Fax 06221 54-2346.", "Telefon [phone], Fax [phone]."),
    ("Spenden auf DE89 3704 0044 0532 0130 00.", "Spenden auf [iban]."),
)


@dataclass(frozen=True)
class Planted:
    """A document of the test corpus.

    Attributes:
        kind: What was planted; `good` if nothing was.
        text: The text as the recipe gets it.
        wanted: The text as it should leave it; none if it should drop the document.
    """

    kind: str
    text: str
    wanted: str | None


@dataclass(frozen=True)
class Row:
    """What became of a kind.

    Attributes:
        kind: What was planted.
        step: The step that is to find it.
        planted: Documents with it.
        mended: Those that came out as wanted, whichever step did it.
        harmed: Good documents that the step dropped or changed.
    """

    kind: str
    step: str
    planted: int
    mended: int
    harmed: int

    @property
    def recall(self) -> float:
        """Share of the planted documents that came out as wanted."""
        return self.mended / self.planted

    @property
    def precision(self) -> float:
        """Share of the mended documents in these and the harmed ones."""
        return self.mended / max(self.mended + self.harmed, 1)


class Ingredients(NamedTuple):
    """What a fault is made of.

    Attributes:
        rng: Decides where and what.
        good: The text that it is planted in.
        foreign: A text in another language.
        test: The text of a test.
        other: Another good text, which is in the corpus as it is, before this one.
    """

    rng: random.Random
    good: str
    foreign: str
    test: str
    other: str


def english(given: Ingredients) -> tuple[str, str | None]:
    return given.foreign, None


def boilerplate(given: Ingredients) -> tuple[str, str | None]:
    return insert_lines(given, given.rng.sample(BOILERPLATE, 3)), given.good


def mojibake(given: Ingredients) -> tuple[str, str | None]:
    return given.good.encode().decode("latin-1"), given.good


def repetition(given: Ingredients) -> tuple[str, str | None]:
    words = given.good.split()[:100]
    passage = " ".join(words[: given.rng.randint(8, 60)])
    return "\n".join([" ".join(words), *[passage] * 8]), None


def symbols(given: Ingredients) -> tuple[str, str | None]:
    rng, words = given.rng, given.good.split()
    return " ".join(rng.choice("*#=|<>-_/") * 3 + rng.choice(words) for _ in range(200)), None


def personal(given: Ingredients) -> tuple[str, str | None]:
    line, masked = given.rng.choice(PERSONAL)
    return f"{given.good}\n{line}", f"{given.good}\n{masked}"


def contamination(given: Ingredients) -> tuple[str, str | None]:
    return insert_lines(given, [given.rng.choice([given.test, given.test.upper()])]), None


def copy(given: Ingredients) -> tuple[str, str | None]:
    return given.other, None


def near_copy(given: Ingredients) -> tuple[str, str | None]:
    """Every hundredth word is another one: nine of ten sequences of five words are the same."""
    words = given.other.split(" ")
    for place in range(given.rng.randrange(50), len(words), 100):
        words[place] = given.rng.choice(given.good.split())
    return " ".join(words), None


def quotation(given: Ingredients) -> tuple[str, str | None]:
    words = given.other.split()
    start = given.rng.randrange(len(words) - 60)
    passage = given.other[given.other.index(words[start]) :][:400].rsplit(maxsplit=1)[0]
    return f"{given.good}\n{passage}", given.good


def insert_lines(given: Ingredients, inserted: Sequence[str]) -> str:
    lines = given.good.split("\n")
    for line in inserted:
        lines.insert(given.rng.randrange(len(lines) + 1), line)
    return "\n".join(lines)


KINDS: dict[str, tuple[str, Callable[[Ingredients], tuple[str, str | None]]]] = {
    "English": ("language", english),
    "boilerplate lines": ("boilerplate", boilerplate),
    "wrong encoding": ("encoding", mojibake),
    "repetition": ("repetition", repetition),
    "symbols": ("quality", symbols),
    "personal data": ("personal-data", personal),
    "copies": ("exact", copy),
    "copies with other words": ("near", near_copy),
    "quotations": ("substrings", quotation),
    "test texts": ("decontaminate", contamination),
}
"""Each kind of fault, the step that is to find it, and how it is planted."""


def plant(
    good: Sequence[str],
    spotless: Sequence[str],
    foreign: Sequence[str],
    tests: Sequence[str],
    of_each: int,
    seed: int = 0,
) -> list[Planted]:
    """Plant ``of_each`` faults of each kind in the last of the spotless texts.

    The good texts that are left as they are come first, so that it is the planted copy that goes.

    Args:
        good: All of them.
        spotless: Those that the recipe leaves as they are: what becomes of a fault in one of them
            is owed to the fault.
        foreign: Texts in another language.
        tests: Texts of tests, each planted as often as another.
        of_each: Faults of a kind.
        seed: Decides everything.
    """
    rng = random.Random(seed)
    count = of_each * len(KINDS)
    hosts, others = spotless[-count:], spotless[:-count]
    corpus = [Planted("good", text, text) for text in good if text not in set(hosts)]
    left, test = iter(hosts), cycle(rng.sample(tests, len(tests)))
    for kind, (_, make) in KINDS.items():
        for text in islice(left, of_each):
            given = Ingredients(rng, text, rng.choice(foreign), next(test), rng.choice(others))
            corpus.append(Planted(kind, *make(given)))
    return corpus


def follow(
    texts: Sequence[str], config: PrepareConfig, folder: Path
) -> Iterator[tuple[str, dict[int, str]]]:
    """The name of each step of the recipe, and the texts that it leaves, by their number."""
    left = dict(enumerate(texts))
    for name, step in steps(config, folder):
        documents = (Document(text, str(number)) for number, text in left.items())
        left = {int(document.id): document.text for document in step(documents)}
        yield name, left


def find_spotless(texts: Sequence[str], config: PrepareConfig, folder: Path) -> list[str]:
    """The texts that the recipe leaves as they are."""
    *_, (_, left) = follow(texts, config, folder)
    return [text for number, text in left.items() if text == texts[number]]


def measure(corpus: Sequence[Planted], config: PrepareConfig, folder: Path) -> list[Row]:
    """Follow the recipe step by step and count."""
    before = dict(enumerate(planted.text for planted in corpus))
    harmed: dict[str, int] = {}
    for name, left in follow(list(before.values()), config, folder):
        touched = [number for number, text in before.items() if left.get(number) != text]
        harmed[name] = sum(corpus[number].kind == "good" for number in touched)
        before = left
    return [
        Row(
            kind,
            step,
            sum(planted.kind == kind for planted in corpus),
            sum(p.kind == kind and before.get(i) == p.wanted for i, p in enumerate(corpus)),
            harmed[step],
        )
        for kind, (step, _) in KINDS.items()
    ]


Step = Callable[[Iterator[Document]], Iterator[Document]]


def steps(config: PrepareConfig, folder: Path) -> Iterator[tuple[str, Step]]:
    """The recipe, one named step after the other, each for one task."""
    samples, index = folder / "samples", folder / "tests.npy"
    for step in clean_steps(config.clean, samples):
        yield step.name, step.run
    for name, find in deduplications(config.deduplicate).items():
        place = Workspace(folder / "documents" / name, 1, folder / name, samples)
        yield name, partial(deduplicate, find, place)
    build_index(config.decontaminate, index)
    last = Decontaminate(config.decontaminate, index, Samples(samples, Decontaminate.name))
    yield last.name, last.run


def deduplicate(
    find: Callable[[Workspace], Deduplication], place: Workspace, documents: Iterator[Document]
) -> Iterator[Document]:
    """Write the documents, find what was there before, and take it out of them."""
    for _ in WriteDocuments(place.documents).run(documents):
        pass
    found = find(place)
    run_stages(found.stages, place.scratch, ExecutionSection(workers=1))
    yield from found.filter.run(ReadDocuments(place.documents).run())


def kept_as_they_are(of_each: int, folder: Path) -> dict[tuple[str, str], tuple[int, list[str]]]:
    """For each kind and language of good text, how many stay, and what touches the others."""
    found = {}
    for kind in good_text.KINDS:
        for language in good_text.LANGUAGES:
            texts = good_text.documents(language, kind, of_each)
            left, touched = texts, []
            section = RECIPE.clean.model_copy(update={"language": language})
            for step in clean_steps(section, folder / "samples"):
                before = left
                documents = (Document(text, str(i)) for i, text in enumerate(before))
                left = [document.text for document in step.run(documents)]
                if left != before:
                    touched.append(step.name)
            found[kind.__name__, language] = len(set(left) & set(texts)), touched
    return found


def read_good(file: str, count: int) -> list[str]:
    """The first texts of a file that are long enough, without blanks at the ends of lines."""
    texts = (text for text in read_documents([file]) if len(text.split()) >= 80)
    return ["\n".join(map(str.strip, text.splitlines())) for text in islice(texts, count)]


def read_tests(files: Sequence[str], ngram: int) -> list[str]:
    """Texts of tests that are long enough to be found, on one line each."""
    texts: Iterator[str] = (" ".join(text.split()) for text in read_documents(files))
    return [text for text in texts if len(normal_words(text)) >= ngram]


def run(
    good_file: str, foreign_file: str, tests: Sequence[str], documents: int, of_each: int
) -> list[Row]:
    """Make the corpus out of the files, follow the whole recipe and count."""
    config = RECIPE.model_copy(update={"decontaminate": DecontaminateSection(against=tuple(tests))})
    good = read_good(good_file, documents)
    with tempfile.TemporaryDirectory() as folder:
        corpus = plant(
            good,
            find_spotless(good, config, Path(folder) / "spotless"),
            read_good(foreign_file, of_each),
            read_tests(tests, config.decontaminate.ngram),
            of_each,
        )
        return measure(corpus, config, Path(folder) / "planted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--good", required=True, help="German text, JSON lines")
    parser.add_argument("--foreign", required=True, help="English text, JSON lines")
    parser.add_argument("--tests", required=True, nargs="+", help="test texts, JSON lines")
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--of-each", type=int, default=100)
    given = parser.parse_args()
    print("| planted | documents | found by | recall | precision | good documents touched |")
    print("|---|---|---|---|---|---|")
    for row in run(given.good, given.foreign, given.tests, given.documents, given.of_each):
        print(
            f"| {row.kind} | {row.planted} | {row.step} | {row.recall:.3f} | {row.precision:.3f} "
            f"| {row.harmed} |"
        )
    print(f"\n| good text | {' | '.join(good_text.LANGUAGES)} | touched by |")
    print("|---" * (len(good_text.LANGUAGES) + 2) + "|")
    with tempfile.TemporaryDirectory() as folder:
        kept = kept_as_they_are(given.of_each, Path(folder))
    for kind in good_text.KINDS:
        cells = [kept[kind.__name__, language] for language in good_text.LANGUAGES]
        shares = " | ".join(f"{count / given.of_each:.2f}" for count, _ in cells)
        by = sorted({step for _, steps in cells for step in steps})
        print(f"| {kind.__name__} | {shares} | {', '.join(by) or 'nothing'} |")


if __name__ == "__main__":
    main()
