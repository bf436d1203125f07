"""The configuration of a transfer: the flags of `clp-jax transfer`, and a section of a chain's."""

from collections.abc import Sequence
from typing import Any

from pydantic import model_validator
from typing_extensions import TypedDict

from clp_jax.config import Configuration
from clp_jax.limits import Dtype, LocalName, Method, Name, PadMultiple, Seed, Share


class TransferConfig(Configuration):
    """How a source model gets the vocabulary of a helper."""

    method: Method = "auto"
    """How new rows are made; `clp` is the paper's, `auto` ranks all methods and takes the best."""
    data: tuple[Name, ...] = ()
    """A little text of the target language, to choose and calibrate by; not what is measured on."""
    text_field: Name = "text"
    """Field of a record that holds the text."""
    source_weight: Share | None = None
    """How much of a shared token's row is the source's, 0 to 1; empty: as the method has it."""
    match_spread: bool | None = None
    """Make computed rows as different from each other as the source's rows are; empty: no, and
    `auto` tries both."""
    calibrate: bool = False
    """Shift the output rows so that each token is expected as often as the text has it."""
    no_fallback: bool = False
    """Keep the paper's formula even for rows where its weights nearly cancel out."""
    fuzzy: bool = False
    """Also copy rows of tokens that differ in case or in the space before them."""
    extend: bool = False
    """Keep the source's vocabulary and add the target's tokens to it: a model of two languages."""
    pad_to_multiple_of: PadMultiple = 1
    """Add rows that no token has, until their number is a multiple of this."""
    token_vectors: LocalName | None = None
    """For `focus`: .npy file with a row for each target id; empty: trained on the data."""
    source_vectors: LocalName | None = None
    """For `wechsel`: word vectors of the source language, .vec, .txt or .npy."""
    target_vectors: LocalName | None = None
    """For `wechsel`: word vectors of the target language."""
    dictionary: LocalName | None = None
    """For `wechsel`: file of word pairs to align the two by; empty: they are aligned already."""
    trace: bool = False
    """Also write transfer_trace.jsonl: what each row is made of."""
    seed: Seed = 0
    """Seed of random rows and of trained vectors."""
    dtype: Dtype | None = None
    """float32, bfloat16, float16 or float64; empty keeps the source's."""

    @model_validator(mode="after")
    def _fits_together(self) -> "TransferConfig":
        chosen = [
            name for name in ("source_weight", "match_spread", "calibrate") if name in self.given
        ]
        if self.method == "auto" and chosen:
            raise ValueError(f"{chosen[0]} is chosen by the method auto: name another method")
        if self.no_fallback and self.method != "clp":
            raise ValueError(f"no_fallback belongs to the method clp, not to {self.method}")
        if self.calibrate and not self.data:
            raise ValueError("calibrate needs data: text of the target language")
        if self.extend and (self.calibrate or self.source_weight not in (None, 1)):
            raise ValueError("extend keeps the source's rows: they are copied, and not calibrated")
        if (self.source_vectors is None) != (self.target_vectors is None):
            raise ValueError("source_vectors and target_vectors belong together: give both")
        return self

    @property
    def given(self) -> dict[str, Any]:
        """The keys that differ from their defaults, as JSON has them."""
        return self.model_dump(mode="json", exclude_defaults=True)


class TransferOptions(TypedDict, total=False):
    """The keys of `TransferConfig` as the keyword arguments of a function."""

    method: Method
    data: Sequence[Name]
    text_field: Name
    source_weight: Share | None
    match_spread: bool | None
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
