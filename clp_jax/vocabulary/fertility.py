"""How two tokenizers split the same text, and what share of it is in matched tokens."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from clp_jax.tokenizer import Tokenizer
from clp_jax.vocabulary.tokens import Vocabulary

MAX_BYTES = 10_000_000
"""Largest amount of text to read; the shares have converged long before."""


@dataclass(frozen=True)
class Fertility:
    """Statistics of two tokenizers on one text."""

    bytes: int
    """Bytes of the text in UTF-8."""
    words: int
    """Words of the text, separated by white space."""
    cut: bool
    """Whether only the beginning of the text was read."""
    source_tokens: int
    """Tokens of the text by the source's tokenizer."""
    target_tokens: int
    """Tokens of the text by the target's tokenizer."""
    matched_tokens_share: float
    """Share of the target's tokens in the text that match a token of the source."""
    matched_bytes_share: float
    """The same share, weighted by the bytes that each token stands for."""

    def to_dict(self) -> dict[str, Any]:
        """All figures by name, ready for JSON, with tokens per word and per byte."""
        return asdict(self) | {
            f"{side}_tokens_per_{unit}": tokens / count
            for side, tokens in (("source", self.source_tokens), ("target", self.target_tokens))
            for unit, count in (("word", self.words), ("byte", self.bytes))
        }

    def __str__(self) -> str:
        figures = self.to_dict()
        source, target = (
            [
                f"{figures[f'{side}_tokens']:,}",
                f"{figures[f'{side}_tokens_per_word']:.3f}",
                f"{figures[f'{side}_tokens_per_byte']:.3f}",
            ]
            for side in ("source", "target")
        )
        names = ("tokens", "tokens per word", "tokens per byte")
        first = "the first " if self.cut else ""
        return "\n".join(
            [
                f"On {first}{self.bytes:,} bytes of running text, {self.words:,} words:",
                f"{'':<32}{'source':>10}{'target':>10}",
                *(
                    f"{name:<32}{one:>10}{other:>10}"
                    for name, one, other in zip(names, source, target, strict=True)
                ),
                f"{'matched, by tokens':<42}{self.matched_tokens_share:>10.1%}",
                f"{'matched, by bytes':<42}{self.matched_bytes_share:>10.1%}",
            ]
        )


def measure_text(
    documents: Iterable[str],
    source: Tokenizer,
    target: Tokenizer,
    vocabulary: Vocabulary,
    matched_ids: Int[np.ndarray, " matched"],
) -> Fertility:
    """Split the first `MAX_BYTES` of the documents with both tokenizers.

    Args:
        documents: the text, with at least one word.
        source: the source's tokenizer.
        target: the target's tokenizer.
        vocabulary: the target's vocabulary.
        matched_ids: target ids that match a source token.
    """
    read = words = source_tokens = 0
    counts = np.zeros(vocabulary.rows, np.int64)
    for document in documents:
        data = document.encode()[: MAX_BYTES - read]
        text = data.decode(errors="ignore")
        read += len(data)
        words += len(text.split())
        source_tokens += len(source.encode(text))
        counts += np.bincount(target.encode_batch([text])[0], minlength=len(counts))
        if read == MAX_BYTES:
            break
    lengths = np.zeros(len(counts), np.int64)
    for id, token in vocabulary.tokens.items():
        lengths[id] = 0 if token.roles else len(token.bytes)
    matched = np.isin(np.arange(len(counts)), matched_ids)
    return Fertility(
        bytes=read,
        words=words,
        cut=read == MAX_BYTES,
        source_tokens=source_tokens,
        target_tokens=int(counts.sum()),
        matched_tokens_share=_share(counts, matched),
        matched_bytes_share=_share(counts * lengths, matched),
    )


def _share(counts: Int[np.ndarray, " ids"], chosen: Bool[np.ndarray, " ids"]) -> float:
    return float(counts[chosen].sum() / max(counts.sum(), 1))
