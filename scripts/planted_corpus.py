"""What the cleaning recipe finds of faults that were planted, and how much good text it harms.

    python scripts/planted_corpus.py --good de/train.jsonl.zst --foreign en/train.jsonl.zst \
        --tests tasks/test.jsonl

Takes documents of good text, leaves most of them as they are, plants a fault of a known kind in
each of the others, follows the recipe step by step and prints a table: how many of the planted
faults of a kind were mended as they should be (recall), and how many good documents the step that
is there for it dropped or changed; these beside the mended ones give the precision.
"""

import argparse
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from clp_jax.config import CleanSection, DecontaminateSection
from clp_jax.data.clean import clean_steps
from clp_jax.data.decontaminate import Decontaminate, build_index, normal_words
from clp_jax.data.readers import read_documents
from clp_jax.data.samples import Samples

CLEAN = CleanSection(
    language="de",
    repair_encoding=True,
    boilerplate=True,
    min_words=50,
    quality=True,
    repetition=True,
    mask_personal_data=True,
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


def english(rng: random.Random, good: str, foreign: str, test: str) -> tuple[str, str | None]:
    return foreign, None


def boilerplate(rng: random.Random, good: str, foreign: str, test: str) -> tuple[str, str | None]:
    lines = good.split("\n")
    for line in rng.sample(BOILERPLATE, 3):
        lines.insert(rng.randrange(len(lines) + 1), line)
    return "\n".join(lines), good


def mojibake(rng: random.Random, good: str, foreign: str, test: str) -> tuple[str, str | None]:
    return good.encode().decode("latin-1"), good


def repetition(rng: random.Random, good: str, foreign: str, test: str) -> tuple[str, str | None]:
    words = good.split()[:100]
    passage = " ".join(words[: rng.randint(8, 60)])
    return "\n".join([" ".join(words), *[passage] * 8]), None


def symbols(rng: random.Random, good: str, foreign: str, test: str) -> tuple[str, str | None]:
    return " ".join(
        rng.choice("*#=|<>-_/") * 3 + rng.choice(good.split()) for _ in range(200)
    ), None


def personal(rng: random.Random, good: str, foreign: str, test: str) -> tuple[str, str | None]:
    line, masked = rng.choice(PERSONAL)
    return f"{good}\n{line}", f"{good}\n{masked}"


def contamination(rng: random.Random, good: str, foreign: str, test: str) -> tuple[str, str | None]:
    lines = good.split("\n")
    lines.insert(rng.randrange(len(lines) + 1), rng.choice([test, test.upper()]))
    return "\n".join(lines), None


KINDS: dict[str, tuple[str, Callable[..., tuple[str, str | None]]]] = {
    "English": ("language", english),
    "boilerplate lines": ("boilerplate", boilerplate),
    "wrong encoding": ("encoding", mojibake),
    "repetition": ("repetition", repetition),
    "symbols": ("quality", symbols),
    "personal data": ("personal-data", personal),
    "test texts": ("decontaminate", contamination),
}
"""Each kind of fault, the step that is to find it, and how it is planted."""


def plant(
    good: Sequence[str], foreign: Sequence[str], tests: Sequence[str], of_each: int, seed: int = 0
) -> list[Planted]:
    """Plant ``of_each`` faults of each kind in the first of the good texts; mix them all."""
    rng = random.Random(seed)
    rest = iter(good)
    corpus = [
        Planted(kind, *make(rng, text, rng.choice(foreign), rng.choice(tests)))
        for kind, (_, make) in KINDS.items()
        for text in islice(rest, of_each)
    ]
    corpus += [Planted("good", text, text) for text in rest]
    rng.shuffle(corpus)
    return corpus


def measure(corpus: Sequence[Planted], steps: Sequence[PipelineStep]) -> list[Row]:
    """Follow the steps one after the other and count."""
    left = {str(i): planted.text for i, planted in enumerate(corpus)}
    harmed: dict[str, int] = {}
    for step in steps:
        documents = (Document(text, id) for id, text in left.items())
        after = {document.id: document.text for document in step.run(documents)}
        touched = [corpus[int(id)] for id, text in left.items() if after.get(id) != text]
        harmed[step.name] = sum(planted.kind == "good" for planted in touched)
        left = after
    return [
        Row(
            kind,
            step,
            sum(planted.kind == kind for planted in corpus),
            sum(p.kind == kind and left.get(str(i)) == p.wanted for i, p in enumerate(corpus)),
            harmed[step],
        )
        for kind, (step, _) in KINDS.items()
    ]


def read_good(file: str, count: int) -> list[str]:
    """The first texts of a file that are long enough, without blanks at the ends of lines."""
    texts = (text for text in read_documents([file]) if len(text.split()) >= 80)
    return ["\n".join(map(str.strip, text.splitlines())) for text in islice(texts, count)]


def read_tests(files: Sequence[str], ngram: int) -> list[str]:
    """Texts of tests that are long enough to be found, on one line each."""
    texts: Iterator[str] = (" ".join(text.split()) for text in read_documents(files))
    return [text for text in texts if len(normal_words(text)) >= ngram]


def run(good: str, foreign: str, tests: Sequence[str], documents: int, of_each: int) -> list[Row]:
    """Make the corpus out of the files, follow the whole recipe and count."""
    section = DecontaminateSection(against=tuple(tests))
    corpus = plant(
        read_good(good, documents),
        read_good(foreign, of_each),
        read_tests(tests, section.ngram),
        of_each,
    )
    with tempfile.TemporaryDirectory() as folder:
        index, samples = Path(folder) / "index.npy", Path(folder) / "samples"
        build_index(section, index)
        decontaminate = Decontaminate(section, index, Samples(samples, Decontaminate.name))
        return measure(corpus, [*clean_steps(CLEAN, samples), decontaminate])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--good", required=True, help="German text, JSON lines")
    parser.add_argument("--foreign", required=True, help="English text, JSON lines")
    parser.add_argument("--tests", required=True, nargs="+", help="test texts, JSON lines")
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--of-each", type=int, default=100)
    given = parser.parse_args()
    print("| planted | documents | found by | recall | precision | good documents harmed |")
    print("|---|---|---|---|---|---|")
    for row in run(given.good, given.foreign, given.tests, given.documents, given.of_each):
        print(
            f"| {row.kind} | {row.planted} | {row.step} | {row.recall:.3f} | {row.precision:.3f} "
            f"| {row.harmed} |"
        )


if __name__ == "__main__":
    main()
