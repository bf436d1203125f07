"""The figures of a text's perplexity and their intervals."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float64

RESAMPLES = 1000
"""Bootstrap resamples of the documents."""


@dataclass(frozen=True)
class Perplexity:
    """The negative log-likelihood of a text, and the counts that normalise it.

    Perplexities with different normalisations differ by factors of ten; only word- and
    byte-normalised ones can be compared between tokenizers.
    """

    nll: float
    """Sum of the negative log-likelihoods of all predicted tokens, in nats."""
    tokens: int
    """Predicted tokens, including the end-of-text token after each document."""
    words: int
    """Words of the text, separated by white space."""
    bytes: int
    """Bytes of the text in UTF-8."""
    unknown_bytes: int = 0
    """Bytes that are encoded as the unknown token alone, and therefore cost too little."""
    dtype: str = "float32"
    """Precision of the computation."""
    documents: Float64[np.ndarray, "documents 4"] | None = field(
        default=None, repr=False, compare=False
    )
    """The nll, tokens, words and bytes of each document, where they were measured apart."""

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood per token in nats, which training minimises."""
        return self.nll / self.tokens

    @property
    def token_perplexity(self) -> float:
        """exp(nll / tokens)."""
        return _exp(self.loss)

    @property
    def word_perplexity(self) -> float:
        """exp(nll / words)."""
        return _exp(self.nll / self.words)

    @property
    def byte_perplexity(self) -> float:
        """exp(nll / bytes)."""
        return _exp(self.nll / self.bytes)

    @property
    def bits_per_byte(self) -> float:
        """nll / bytes in bits."""
        return self.nll / self.bytes / math.log(2)

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95% intervals of the figures by name: bootstrap over documents, with a fixed seed.

        Empty if there are fewer than two documents, or they were not measured apart.
        """
        if self.documents is None or len(self.documents) < 2:
            return {}
        rng, count = np.random.default_rng(0), len(self.documents)
        drawn = (rng.integers(count, size=count) for _ in range(RESAMPLES))
        sums = np.stack([np.bincount(i, minlength=count) @ self.documents for i in drawn])
        low, high = np.quantile(sums[:, :1] / sums[:, 1:], (0.025, 0.975), axis=0).tolist()
        ends = {
            f"{unit}_perplexity": (_exp(low[column]), _exp(high[column]))
            for column, unit in enumerate(("token", "word", "byte"))
        }
        return ends | {"bits_per_byte": (low[2] / math.log(2), high[2] / math.log(2))}

    def to_dict(self) -> dict[str, float | str]:
        """All figures by name, ready for JSON."""
        return {
            "nll": self.nll,
            "tokens": self.tokens,
            "words": self.words,
            "bytes": self.bytes,
            "unknown_bytes": self.unknown_bytes,
            "loss": self.loss,
            "token_perplexity": self.token_perplexity,
            "word_perplexity": self.word_perplexity,
            "byte_perplexity": self.byte_perplexity,
            "bits_per_byte": self.bits_per_byte,
            "dtype": self.dtype,
        }


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
