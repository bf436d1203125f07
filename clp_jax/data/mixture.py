"""How several corpora are mixed: which of them the n-th sequence of a run comes from."""

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm


class Mixture:
    """An endless sequence in which each corpus has its share, evenly spread, in any stretch of it.

    Nothing but whole numbers decides a place, and any place is computed at once. Of the first n
    sequences, the first corpus gets all but floor(n * rest), where rest is the share of the others;
    these divide what is left in the same way. After as many sequences as the parts add up to, each
    corpus has given exactly its part.

    Args:
        weights: Share of each corpus, on any scale; a float counts as the decimal number that it
            is written as.
    """

    def __init__(self, weights: Sequence[int | float]):
        exact = [Fraction(str(weight)) for weight in weights]
        scale = lcm(*(weight.denominator for weight in exact))
        parts = [int(weight * scale) for weight in exact]
        self.parts = [part // gcd(*parts) for part in parts]
        """The shares as whole numbers without a common divisor."""
        self._left = [sum(self.parts[corpus:]) for corpus in range(len(parts) + 1)]

    def counts(self, sequences: int) -> list[int]:
        """How many of the first ``sequences`` come from each corpus."""
        counts = []
        for left, rest in zip(self._left, self._left[1:], strict=False):
            others = sequences * rest // left
            counts.append(sequences - others)
            sequences = others
        return counts

    def place(self, index: int) -> tuple[int, int]:
        """The corpus of the sequence ``index``, and how many come from it before."""
        pairs = zip(self.counts(index), self.counts(index + 1), strict=True)
        return next((i, before) for i, (before, after) in enumerate(pairs) if after > before)
