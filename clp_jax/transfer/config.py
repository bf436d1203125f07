"""The configuration of a transfer: flags of `clp-jax transfer` and a section of a chain."""

from collections.abc import Sequence
from typing import Any

from pydantic import model_validator
from typing_extensions import TypedDict

from clp_jax.config import Configuration
from clp_jax.limits import (
    Dtype,
    Factor,
    LocalName,
    Method,
    Name,
    Natural,
    PadMultiple,
    Positive,
    PositiveFactor,
    Seed,
    Share,
)

CONSTANTS: dict[str, tuple[Method, ...]] = {
    "neighbours": ("clp-topk", "ridge-residual", "wechsel"),
    "temperature": ("clp-topk", "ridge-residual", "wechsel"),
    "strength": ("ridge", "ridge-residual", "ridge-joint"),
    "count_exponent": ("ridge", "ridge-residual", "ridge-joint"),
    "atoms": ("omp",),
}
"""The keys that set a constant of methods, and those methods."""

VECTORS: dict[str, tuple[Method, ...]] = {
    "token_vectors": ("focus",),
    "source_vectors": ("wechsel",),
    "target_vectors": ("wechsel",),
    "dictionary": ("wechsel",),
}
"""The keys that name vectors of methods, and those methods."""

CHOSEN = ("source_weight", "match_spread", "spread_shrinkage", "by_reliability", "calibrate")
"""The keys that `auto` sets."""


class TransferConfig(Configuration):
    """How a source model gets another vocabulary with the rows of a helper."""

    method: Method = "auto"
    """How to compute new rows; `clp` is the paper's method, `auto` ranks all and takes the best."""
    tokenizer: Name | None = None
    """Tokenizer of the new model, spelled with the helper's tokens; empty: the helper's own."""
    data: tuple[Name, ...] = ()
    """A little text of the target language to choose and calibrate with, not to evaluate on."""
    text_field: Name = "text"
    """The field of a record that holds the text."""
    source_weight: Share | None = None
    """Weight of the source in a shared token's row, 0 to 1; empty: the method's default."""
    match_spread: bool | None = None
    """Scale computed rows to the spread of the source's rows; empty: no, and `auto` tries both."""
    spread_shrinkage: PositiveFactor | None = None
    """Match the spread by principal direction, shrunk this much to one factor; empty: that one."""
    by_reliability: bool = False
    """Copy the less of a shared row, the worse the other shared tokens predict it."""
    rank_steps: Natural = 0
    """Steps of training, body frozen, of the best three candidates before `auto` chooses."""
    neighbours: Positive | None = None
    """How many anchors share a row of `clp-topk`, `wechsel` (10) or `ridge-residual` (20)."""
    temperature: PositiveFactor | None = None
    """Temperature of their softmax; empty: 0.1. The smaller, the more the nearest anchor gets."""
    strength: Factor | None = None
    """Ridge's regularisation, in mean squares of a feature; empty: as held-out anchors allow."""
    count_exponent: Share | None = None
    """With `data`, ridge weighs anchors by their count to the power of this; empty: 0.5."""
    atoms: Positive | None = None
    """How many anchors `omp` combines in a row; empty: 64."""
    calibrate: bool = False
    """Shift the output rows so that each token is predicted as often as it occurs in the text."""
    no_fallback: bool = False
    """Keep the paper's formula even for rows whose weights nearly cancel out."""
    fuzzy: bool = False
    """Also copy the rows of tokens that differ only in case or in a leading space."""
    extend: bool = False
    """Keep the source's vocabulary and add the target's tokens: a model of two languages."""
    pad_to_multiple_of: PadMultiple = 1
    """Pad the table with unused rows to a multiple of this number."""
    token_vectors: LocalName | None = None
    """For `focus`: .npy file with one row per target id; empty: train them on the data."""
    source_vectors: LocalName | None = None
    """For `wechsel`: word vectors of the source language, .vec, .txt or .npy."""
    target_vectors: LocalName | None = None
    """For `wechsel`: word vectors of the target language."""
    dictionary: LocalName | None = None
    """For `wechsel`: file of word pairs to align the two; empty: they are already aligned."""
    trace: bool = False
    """Also write transfer_trace.jsonl: the main contributors of each row."""
    seed: Seed = 0
    """Seed of random rows, of the text that is drawn, and of the training of token vectors."""
    dtype: Dtype | None = None
    """float32, bfloat16, float16 or float64; empty: the source's."""

    @model_validator(mode="after")
    def _fits_together(self) -> "TransferConfig":
        if self.method == "auto":
            self.refuse_ignored("the method auto chooses for itself", *CHOSEN)
        else:
            self.refuse_ignored(f"the method is {self.method}, not auto", "rank_steps")
        if self.method != "clp":
            self.refuse_ignored(f"the method is {self.method}, not clp", "no_fallback")
        for key, methods in (CONSTANTS | VECTORS).items():
            if self.method not in ("auto", *methods):
                self.refuse_ignored(f"the method is {self.method}, not {' or '.join(methods)}", key)
        if not self.match_spread:
            self.refuse_ignored("match_spread is off", "spread_shrinkage")
        if not self.data:
            of_text = ("text_field", "rank_steps", "count_exponent", "calibrate")
            self.refuse_ignored("data is empty", *of_text)
        if self.source_vectors is None:
            self.refuse_ignored("source_vectors is empty", "dictionary")
        mixed = self.by_reliability or self.source_weight not in (None, 1)
        if self.extend and (self.calibrate or mixed):
            raise ValueError(
                "extend keeps the source's rows unchanged: remove calibrate, source_weight and "
                "by_reliability"
            )
        if (self.source_vectors is None) != (self.target_vectors is None):
            raise ValueError("source_vectors and target_vectors need each other: give both")
        return self

    def constants_of(self, method: str) -> dict[str, Any]:
        """The constants of a method that are given."""
        values = {key: getattr(self, key) for key in CONSTANTS if method in CONSTANTS[key]}
        return {key: value for key, value in values.items() if value is not None}


class TransferOptions(TypedDict, total=False):
    """The keys of `TransferConfig` as the keyword arguments of a function."""

    method: Method
    tokenizer: Name | None
    data: Sequence[Name]
    text_field: Name
    source_weight: Share | None
    match_spread: bool | None
    spread_shrinkage: PositiveFactor | None
    by_reliability: bool
    rank_steps: Natural
    neighbours: Positive | None
    temperature: PositiveFactor | None
    strength: Factor | None
    count_exponent: Share | None
    atoms: Positive | None
    calibrate: bool
    no_fallback: bool
    fuzzy: bool
    extend: bool
    pad_to_multiple_of: PadMultiple
    token_vectors: LocalName | None
    source_vectors: LocalName | None
    target_vectors: LocalName | None
    dictionary: LocalName | None
    trace: bool
    seed: Seed
    dtype: Dtype | None
