"""Training batches: windows of corpora in an order that any number of processes can resume."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from math import gcd, lcm
from typing import Any, TypedDict

import grain
import numpy as np
from jaxtyping import Bool, Int, Int32

from clp_jax.data.corpus.store import Corpus
from clp_jax.errors import UserError


class Mixture:
    """An endless sequence that draws on each corpus by its share, evenly over any stretch.

    Each position is computed directly, in integers. Of the first n sequences, the first corpus
    gets all but floor(n * rest), where rest is the share of the others; these divide the remainder
    in the same way. After as many sequences as the parts add up to, each corpus has contributed
    exactly its part.

    Args:
        weights: Share of each corpus, on any scale; a float counts as its decimal notation.
    """

    def __init__(self, weights: Sequence[int | float]):
        exact = [Fraction(str(weight)) for weight in weights]
        scale = lcm(*(weight.denominator for weight in exact))
        parts = [int(weight * scale) for weight in exact]
        self.parts = [part // gcd(*parts) for part in parts]
        """The shares as integers without a common divisor."""
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
        """The corpus of sequence ``index``, and how many earlier sequences come from it."""
        pairs = zip(self.counts(index), self.counts(index + 1), strict=True)
        return next((i, before) for i, (before, after) in enumerate(pairs) if after > before)


READ_AHEAD = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)


class Batch(TypedDict):
    """Sequences of one optimizer step: inputs ``tokens[:, :-1]``, targets ``tokens[:, 1:]``."""

    tokens: Int32[np.ndarray, "rows length+1"]
    """The ids."""
    mask: Bool[np.ndarray, "rows length"]
    """Which targets are real; those beyond the end of the corpus are not."""


class TrainingBatches:
    """An endless mixture of the windows of corpora; each corpus is reshuffled every epoch.

    The order depends on the seed alone, and any position in it is computed directly: from n, the
    mixture computes which corpus the n-th sequence comes from and which of its sequences it is;
    Grain's index shuffle maps that to a window. The only state is n.

    Args:
        corpora: The tokens.
        weights: The share of each corpus in the sequences, on any scale; None uses its number of
            windows, so that all text is seen equally often.
        sequence_length: Predicted tokens per sequence.
        batch_size: Sequences per batch, over all processes.
        seed: Decides the order.
        rows: Which rows of each batch this process gets; None: all.
        extend: Computes more arrays of a batch from it.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        weights: Sequence[int | float] | None = None,
        *,
        sequence_length: int,
        batch_size: int,
        seed: int,
        rows: Int[np.ndarray, " rows"] | None = None,
        extend: Callable[[Batch], Mapping[str, np.ndarray]] | None = None,
    ):
        self._corpora, self._extend = corpora, extend
        self._length = sequence_length
        self._batch_size = batch_size
        self._rows = np.arange(batch_size) if rows is None else rows
        windows = [corpus.windows(sequence_length) for corpus in corpora]
        self._mixture = Mixture(weights or windows)
        self._identity = {
            "corpus": _identity(corpora, self._mixture),
            "sequence_length": sequence_length,
            "seed": seed,
        }
        # Grain adds the epoch to the seed: without spreading, adjacent seeds would share epochs.
        seeds = np.random.SeedSequence(seed % 2**32).generate_state(len(corpora))
        self._orders = [
            grain.MapDataset.range(count).shuffle(int(spread)).repeat()
            for count, spread in zip(windows, seeds, strict=True)
        ]

    def starting_at(self, position: int = 0) -> Iterator[Mapping[str, np.ndarray]]:
        """Iterate over the batches from a position; threads prefetch a few of them.

        Args:
            position: Sequences consumed so far by all processes together.
        """
        firsts = grain.MapDataset.range(position, sys.maxsize, self._batch_size)
        return iter(firsts.map(self._batch).to_iter_dataset(READ_AHEAD))

    def _batch(self, first: int) -> Mapping[str, np.ndarray]:
        windows = [self._window(first + int(row)) for row in self._rows]
        tokens, mask = zip(*windows, strict=True)
        batch = Batch(tokens=np.stack(tokens), mask=np.stack(mask))
        more = self._extend(batch) if self._extend else {}
        return {"tokens": batch["tokens"], "mask": batch["mask"], **more}

    def _window(
        self, index: int
    ) -> tuple[Int32[np.ndarray, " tokens"], Bool[np.ndarray, " length"]]:
        corpus, place = self._mixture.place(index)
        return self._corpora[corpus].window(self._orders[corpus][place], self._length)

    def counts(self, sequences: int, rows: int) -> Int[np.ndarray, " rows"]:
        """How often the first ``sequences`` have each id, over all processes.

        Args:
            sequences: Sequences from the beginning.
            rows: Number of ids.
        """
        found = np.zeros(rows, np.int64)
        for first in range(0, sequences, self._batch_size):
            last = min(first + self._batch_size, sequences)
            windows = [self._window(index) for index in range(first, last)]
            ids = [part for tokens, mask in windows for part in (tokens[:1], tokens[1:][mask])]
            found += np.bincount(np.concatenate(ids), minlength=rows)
        return found

    def shares(self) -> list[float]:
        """The share of each corpus in the sequences; they add up to 1."""
        parts = self._mixture.parts
        return [part / sum(parts) for part in parts]

    def epochs(self, sequences: int) -> list[float]:
        """How many epochs of each corpus the first ``sequences`` cover."""
        counts = self._mixture.counts(sequences)
        pairs = zip(counts, self._corpora, strict=True)
        return [count / corpus.windows(self._length) for count, corpus in pairs]

    def state(self, position: int) -> dict[str, Any]:
        """The position and the data it refers to, as JSON for a checkpoint."""
        return {"position": position, **self._identity}

    def position(self, state: dict[str, Any]) -> int:
        """The position in a checkpoint.

        Raises:
            UserError: the checkpoint has other corpora, weights, sequence length or seed.
        """
        for key, value in self._identity.items():
            if state.get(key) != value:
                raise UserError(
                    f"The checkpoint has {key} {state.get(key)}, but this run has {value}: "
                    "resume with the same data, sequence length and seed, or start a new run."
                )
        return state["position"]


def _identity(corpora: Sequence[Corpus], mixture: Mixture) -> str:
    """The fingerprint of one corpus, or of several with their parts of the mixture."""
    if len(corpora) == 1:
        return corpora[0].fingerprint
    pairs = zip(mixture.parts, corpora, strict=True)
    return " + ".join(f"{part} x {corpus.fingerprint}" for part, corpus in pairs)
