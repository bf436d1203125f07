"""Training batches: windows of a corpus in an order that any number of processes can resume."""

import sys
from collections.abc import Iterator
from typing import Any, TypedDict

import grain
import numpy as np
from jaxtyping import Bool, Int32

from clp_jax.data.store import Corpus
from clp_jax.errors import UserError

_READ_AHEAD = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)


class Batch(TypedDict):
    """Sequences of one optimizer step: inputs ``tokens[:, :-1]``, targets ``tokens[:, 1:]``."""

    tokens: Int32[np.ndarray, "rows length+1"]
    """The ids."""
    mask: Bool[np.ndarray, "rows length"]
    """Which targets are real: all but those beyond the end of the corpus."""


class TrainingBatches:
    """The windows of a corpus, shuffled anew in every epoch and repeated for ever.

    The order depends on the seed alone. Any place in it is reached at once: the n-th sequence is
    the window number that Grain's index shuffle computes from n, and nothing is kept but n.

    Args:
        corpus: The tokens.
        sequence_length: Predicted tokens of a sequence.
        batch_size: Sequences of a batch, over all processes.
        seed: Decides the order.
        process_index: Which of the processes this is; it gets that part of the rows of each batch.
        process_count: Number of processes.

    Raises:
        UserError: the batch cannot be divided among the processes.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        sequence_length: int,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
    ):
        if batch_size % process_count:
            raise UserError(
                f"A batch of {batch_size} sequences cannot be divided among {process_count} "
                "processes: make train.batch_size a multiple of it."
            )
        self._corpus = corpus
        self._length = sequence_length
        self._batch_size = batch_size
        self._rows = batch_size // process_count
        self._first_row = process_index * self._rows
        self._identity = {
            "corpus": corpus.fingerprint,
            "sequence_length": sequence_length,
            "seed": seed,
        }
        # Grain adds the epoch to the seed: spread the seeds, or neighbours would share epochs.
        spread = int(np.random.SeedSequence(seed % 2**32).generate_state(1)[0])
        windows = grain.MapDataset.range(corpus.windows(sequence_length))
        self._order = windows.shuffle(spread).repeat()

    def starting_at(self, position: int = 0) -> Iterator[Batch]:
        """Iterate over the batches from a position on; threads read a few of them ahead.

        Args:
            position: Sequences consumed so far, by all processes together.
        """
        first = position + self._first_row
        firsts = grain.MapDataset.range(first, sys.maxsize, self._batch_size)
        return iter(firsts.map(self._batch).to_iter_dataset(_READ_AHEAD))

    def _batch(self, first: int) -> Batch:
        sequences = range(first, first + self._rows)
        windows = [self._corpus.window(self._order[i], self._length) for i in sequences]
        tokens, mask = zip(*windows, strict=True)
        return Batch(tokens=np.stack(tokens), mask=np.stack(mask))

    def state(self, position: int) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON: the position and what it is a position in."""
        return {"position": position, **self._identity}

    def position(self, state: dict[str, Any]) -> int:
        """The position in a checkpoint.

        Raises:
            UserError: the checkpoint belongs to another corpus, sequence length or seed.
        """
        for key, value in self._identity.items():
            if state.get(key) != value:
                raise UserError(
                    f"The checkpoint was made with {key} {state.get(key)}, this run has {value}: "
                    "resume with the same data, sequence length and seed, or start a new run."
                )
        return state["position"]
