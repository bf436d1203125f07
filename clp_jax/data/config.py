"""The configuration of `clp-jax prepare`: a recipe that turns text into a corpus."""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from clp_jax.config import Configuration, Section
from clp_jax.limits import Factor, Name, Natural, PartialShare, Positive, Share, SourceKind


class SourceSection(Section):
    """One source of text."""

    input: Name
    """File, glob or hub data set (`hf://NAME[:CONFIG][@SPLIT]`)."""
    kind: SourceKind = "files"
    """Layout of its records: `files`, or a corpus by name, such as `oscar` or `gc4`."""
    text_field: Name | None = None
    """Field of a record that holds the text; empty: the default of the kind."""


class CleanSection(Section):
    """Rules that drop or change documents one by one."""

    language: Name | None = None
    """ISO 639-1 code of the language to keep; empty keeps all languages."""
    language_score: Share = 0.65
    """Minimum score of the language identification."""
    exclude_tags: tuple[str, ...] = ()
    """Drop documents that carry one of these tags in their source."""
    repair_encoding: bool = False
    """Repair text that was decoded wrongly, such as `fÃ¼r`."""
    boilerplate: bool = False
    """Drop lines about cookies, scripts and placeholders (rules of C4)."""
    min_words: Natural = 0
    """Drop documents with fewer words."""
    max_characters: Positive | None = None
    """Drop documents with more characters; empty keeps all."""
    quality: bool = False
    """Drop documents full of symbols, bullets and odd words (rules of Gopher)."""
    repetition: bool = False
    """Drop documents that repeat themselves (rules of Gopher)."""
    mask_personal_data: bool = False
    """Mask e-mail addresses, phone numbers and IBANs."""

    @model_validator(mode="after")
    def _fits_together(self) -> "CleanSection":
        if self.language is None:
            self.refuse_ignored("language is empty", "language_score")
        return self


class DeduplicateSection(Section):
    """What is removed because it occurs earlier in the corpus."""

    exact: bool = False
    """Drop documents that are identical to an earlier one."""
    near: bool = False
    """Drop near duplicates of another document (MinHash)."""
    lines: Factor = 0.0
    """Drop all but the first copy of a line that occurs in more than this share of the documents
    and in more than a hundred; 0 keeps all."""
    substrings: Natural = 0
    """Cut repeated passages of at least this many bytes; 0 keeps all."""

    @field_validator("lines")
    @classmethod
    def _is_share(cls, share: float) -> float:
        if share >= 1:
            raise ValueError(
                f"{share:g} is not a share of the documents: write 0.01 for one in a hundred"
            )
        return share

    @field_validator("substrings")
    @classmethod
    def _long_enough(cls, length: int) -> int:
        if 0 < length < 50:
            raise ValueError(f"{length} bytes is a common phrase: choose 50 or more, or 0")
        return length


class DecontaminateSection(Section):
    """Which documents are dropped so that no test can be answered from memory."""

    against: tuple[Name, ...] = ()
    """Files, globs and hub data sets with the texts of the tests."""
    text_fields: tuple[Name, ...] = ("text",)
    """Fields of their records that hold text."""
    ngram: Positive = 13
    """Drop documents that share this many consecutive words with a test."""

    @model_validator(mode="after")
    def _fits_together(self) -> "DecontaminateSection":
        if not self.against:
            self.refuse_ignored("against is empty", "text_fields", "ngram")
        return self


class CorpusSection(Section):
    """Which documents are held out, and how many broken records are tolerated."""

    heldout: PartialShare = 0.0
    """Share of the documents held out in OUT/heldout, chosen by their hash."""
    max_broken: Natural = 0
    """Broken records to skip per input file; one more ends the run."""


class ExecutionSection(Section):
    """Where the work runs; the corpus is the same everywhere."""

    executor: Literal["local", "slurm", "ray"] = "local"
    """`local`: processes on this machine; the others need a folder that all machines see."""
    workers: int = Field(-1, ge=-1, le=2**20)
    """Tasks that run in parallel; -1: one per core (slurm and ray: no limit)."""
    partition: str | None = None
    """Slurm partition, or several separated by commas."""
    time: str = "24:00:00"
    """Slurm time limit per task."""
    memory: Positive = 4
    """Memory per task in GB, requested from slurm and ray."""

    @field_validator("partition")
    @classmethod
    def _is_partition(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"\w[\w.,-]*", name):
            raise ValueError(f"{name!r} is not a name for a Slurm partition")
        return name

    @field_validator("time")
    @classmethod
    def _is_time(cls, limit: str) -> str:
        if not re.fullmatch(r"[0-9]+(:[0-9]+){0,2}|[0-9]+-[0-9]+(:[0-9]+){0,2}|UNLIMITED", limit):
            raise ValueError(
                f"{limit!r} is not a time limit: write '24:00:00' or '2-12' (days-hours)"
            )
        return limit


class PrepareConfig(Configuration):
    """All options of `clp-jax prepare`: a recipe that turns text into a corpus."""

    sources: tuple[SourceSection, ...] = ()
    clean: CleanSection = CleanSection()
    deduplicate: DeduplicateSection = DeduplicateSection()
    decontaminate: DecontaminateSection = DecontaminateSection()
    corpus: CorpusSection = CorpusSection()
    execution: ExecutionSection = ExecutionSection()
