"""The configuration of `clp-jax prepare`: a recipe that turns text into a corpus."""

import re
from typing import Literal

from pydantic import Field, field_validator

from clp_jax.config import Configuration, Section
from clp_jax.limits import Factor, Name, Natural, PartialShare, Positive, Share, SourceKind


class SourceSection(Section):
    """One source of text."""

    input: Name
    """File, glob or hub data set, written `hf://NAME[:CONFIG][@SPLIT]`."""
    kind: SourceKind = "files"
    """How its records are laid out: `files`, or a corpus by name, such as `oscar` or `gc4`."""
    text_field: Name | None = None
    """Field of a record that holds the text; empty: as the kind has it."""


class CleanSection(Section):
    """Which documents are dropped or changed, one by one."""

    language: Name | None = None
    """ISO 639-1 code: documents in other languages are dropped; empty keeps all."""
    language_score: Share = 0.65
    """How sure the language identification must be."""
    exclude_tags: tuple[str, ...] = ()
    """Documents to which their source gave one of these tags are dropped."""
    repair_encoding: bool = False
    """Repair text that was decoded wrongly, such as `fÃ¼r`."""
    boilerplate: bool = False
    """Drop lines on cookies, scripts and placeholders (rules of C4)."""
    min_words: Natural = 0
    """Shorter documents are dropped."""
    max_characters: Positive | None = None
    """Longer documents are dropped; empty keeps all."""
    quality: bool = False
    """Drop documents of symbols, bullets and odd words (rules of Gopher)."""
    repetition: bool = False
    """Drop documents that repeat themselves (rules of Gopher)."""
    mask_personal_data: bool = False
    """Replace e-mail addresses, phone numbers and IBANs."""


class DeduplicateSection(Section):
    """What is taken out because it was there before."""

    exact: bool = False
    """Drop documents that are equal to an earlier one."""
    near: bool = False
    """Drop documents that are nearly equal to another one (MinHash)."""
    lines: Factor = 0.0
    """Share of the documents: a line that stands in more of them, and in more than a hundred, is
    dropped but for its first copy; 0 keeps all."""
    substrings: Natural = 0
    """Cut passages of at least so many bytes that were there before; 0 keeps all."""

    @field_validator("lines")
    @classmethod
    def _is_share(cls, share: float) -> float:
        if share >= 1:
            raise ValueError(
                f"{share:g} is no share of the documents: write 0.01 for one in a hundred"
            )
        return share

    @field_validator("substrings")
    @classmethod
    def _long_enough(cls, length: int) -> int:
        if 0 < length < 50:
            raise ValueError(f"{length} bytes are a common phrase: choose 50 or more, or 0")
        return length


class DecontaminateSection(Section):
    """Which documents are dropped because a test would be answered from memory."""

    against: tuple[Name, ...] = ()
    """Files, globs and hub data sets with the texts of the tests."""
    text_fields: tuple[Name, ...] = ("text",)
    """Fields of their records that hold text."""
    ngram: Positive = 13
    """Words in a row that must not be shared."""


class CorpusSection(Section):
    """What is written."""

    heldout: PartialShare = 0.0
    """Share of the documents that is held out in OUT/heldout, chosen by their hash."""
    max_broken: Natural = 0
    """BrokenRecord records of an input file that are skipped; with more the run ends."""


class ExecutionSection(Section):
    """Where the work is done; the corpus is the same everywhere."""

    executor: Literal["local", "slurm", "ray"] = "local"
    """`local`: processes of this machine; the others need a folder that all machines see."""
    workers: int = Field(-1, ge=-1, le=2**20)
    """Tasks that run at the same time; -1: one for each core (slurm and ray: no limit)."""
    partition: str | None = None
    """Slurm partition, or several with commas between them."""
    time: str = "24:00:00"
    """Slurm time limit of a task."""
    memory: Positive = 4
    """Memory of a task in GB that slurm and ray are asked for."""

    @field_validator("partition")
    @classmethod
    def _is_partition(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"\w[\w.,-]*", name):
            raise ValueError(f"{name!r} is no name of a partition of Slurm")
        return name

    @field_validator("time")
    @classmethod
    def _is_time(cls, limit: str) -> str:
        if not re.fullmatch(r"[0-9]+(:[0-9]+){0,2}|[0-9]+-[0-9]+(:[0-9]+){0,2}|UNLIMITED", limit):
            raise ValueError(f"{limit!r} is no time limit: write '24:00:00' or '2-12' (days-hours)")
        return limit


class PrepareConfig(Configuration):
    """Everything that `clp-jax prepare` needs to know: a recipe that turns text into a corpus."""

    sources: tuple[SourceSection, ...] = ()
    clean: CleanSection = CleanSection()
    deduplicate: DeduplicateSection = DeduplicateSection()
    decontaminate: DecontaminateSection = DecontaminateSection()
    corpus: CorpusSection = CorpusSection()
    execution: ExecutionSection = ExecutionSection()
