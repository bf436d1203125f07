"""Calibration and evaluation of transferred models on a little text of the target language."""

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Float, Int, Int32

from clp_jax.checkpoint.hf import build_model
from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.data.corpus.store import Corpus
from clp_jax.loss import window_loss
from clp_jax.mesh import batch_divisor, batch_sharding, to_host
from clp_jax.models import (
    Decoder,
    abstract_model,
    parameter_path,
    parameter_shardings,
    read_decoder_config,
    weight_table,
)
from clp_jax.tokenizer import Tokenizer
from clp_jax.transfer.blockwise import matmul, row_slices

CALIBRATION_WINDOWS = 1024
"""Windows to keep of the first half of a text, at the most."""

EVALUATION_WINDOWS = 64
"""Windows to keep of the second half, at the most."""

SCORED_WINDOWS = 16
"""Windows to compare models on, and to calibrate on; see `part_of`."""

LONGEST_WINDOW = 256
"""Tokens per window, if the model has as many positions."""

UNSEEN = 0.5
"""Added to the count of every token, so that no frequency is zero."""


class Sample(NamedTuple):
    """Tokenized text: one half to measure frequencies, the other to measure the loss.

    Attributes:
        frequencies: relative frequency of each id in the first half; practically zero for ids
            without a token.
        calibration: windows of the first half.
        evaluation: windows of the second half.
        bytes_per_token: of the second half.
        words_per_token: of the second half; words are separated by white space.
        unknown: share of the second half's bytes that became unknown tokens, which cost too little.
    """

    frequencies: Float[np.ndarray, "id"]
    calibration: Int32[np.ndarray, "window length"]
    evaluation: Int32[np.ndarray, "window length"]
    bytes_per_token: float
    words_per_token: float
    unknown: float


def make_sample(
    documents: Sequence[str],
    tokenizer: Tokenizer,
    *,
    rows: int,
    positions: int | None,
) -> Sample:
    """Tokenize documents, assigning them to the two halves in turn.

    Args:
        documents: the text.
        tokenizer: the target's tokenizer.
        rows: rows of the new table, padding included.
        positions: the longest sequence that the model accepts.
    """
    calibration, evaluation = (
        Corpus.from_documents(documents[half::2], tokenizer) for half in (0, 1)
    )
    known = np.zeros(rows)
    known[[*tokenizer.vocabulary.values()]] = UNSEEN
    counts = np.bincount(calibration.tokens(), minlength=rows) + np.maximum(known, 1e-9)
    length = min(LONGEST_WINDOW, positions or LONGEST_WINDOW)
    return Sample(
        frequencies=counts / counts.sum(),
        calibration=_windows(calibration, length, CALIBRATION_WINDOWS),
        evaluation=_windows(evaluation, length, EVALUATION_WINDOWS),
        bytes_per_token=evaluation.bytes / len(evaluation),
        words_per_token=evaluation.words / len(evaluation),
        unknown=evaluation.unknown_bytes / evaluation.bytes,
    )


def _windows(corpus: Corpus, length: int, most: int) -> Int32[np.ndarray, "window tokens"]:
    """Full windows, evenly spread over the corpus; a single short one if no full one fits."""
    count = (len(corpus) - 1) // length
    if not count:
        return corpus.tokens().astype(np.int32)[None]
    chosen = spread(count, most)
    return np.stack([corpus.window(index, length)[0] for index in chosen.tolist()])


def spread(count: int, chosen: int) -> Int[np.ndarray, " chosen"]:
    """At most ``chosen`` of ``count`` positions, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(chosen, count)).astype(int))


def part_of(
    windows: Int32[np.ndarray, "window tokens"], count: int
) -> Int32[np.ndarray, "chosen tokens"]:
    """As many tokens as ``count`` windows of `LONGEST_WINDOW` hold, in windows evenly spread."""
    length = windows.shape[1] - 1
    return windows[spread(len(windows), -(-count * LONGEST_WINDOW // length))]


BATCH = 4
ROUNDS = 3
"""Rounds of calibration. With tied tables, each changes the input rows too, and so the error."""

Tables = Mapping[str, Float[np.ndarray, "row dim"]]


class Evaluator:
    """The source's body on a mesh, to evaluate with one new table after another.

    Args:
        config: ``config.json`` of the transferred model.
        tensors: the source's tensors; its tables are not read.
        tables: names of the tables.
        sample: the text.
        mesh: devices to place the model on.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tensors: Mapping[str, LazyTensor],
        tables: list[str],
        sample: Sample,
        mesh: Mesh,
    ) -> None:
        decoder = read_decoder_config(dict(config))
        paths = {weight.name: weight.path for weight in weight_table(decoder)}
        blank = np.zeros((decoder.vocab_size, decoder.hidden_size), np.float32)
        model = build_model(
            decoder, {**tensors, **{name: LazyTensor.of(blank) for name in tables}}, mesh
        )
        self.graphdef, self.params = nnx.split(model)
        self.sample, self.mesh = sample, mesh
        self.paths = {name: paths[name] for name in tables}
        self.shardings = self._shardings(model)

    def with_tokenizer(self, config: Mapping[str, Any], sample: Sample) -> "Evaluator":
        """The same body on the same devices, for tables and text of another tokenizer.

        Args:
            config: ``config.json`` of a model with that body.
            sample: the text.
        """
        other, model = copy(self), abstract_model(read_decoder_config(dict(config)))
        other.graphdef, other.sample = nnx.graphdef(model), sample
        other.shardings = self._shardings(model)
        return other

    def _shardings(self, model: Decoder) -> dict[str, NamedSharding]:
        """Where the tables of a model go, by their paths."""
        return {
            parameter_path(path): sharding
            for path, sharding in jax.tree_util.tree_leaves_with_path(
                parameter_shardings(model, self.mesh)
            )
            if parameter_path(path) in self.paths.values()
        }

    def loss(self, tables: Tables, windows: int = EVALUATION_WINDOWS) -> float:
        """Mean loss on the sample's second half, in bits per byte: comparable across tokenizers.

        Args:
            tables: the tables by name.
            windows: how much of it to use, see `part_of`.
        """
        params, total, count = self.with_tables(tables), 0.0, 0.0
        with jax.set_mesh(self.mesh):
            for batch, mask in self.batches(part_of(self.sample.evaluation, windows)):
                loss, tokens = window_loss(self.graphdef, params, batch, mask)
                total, count = total + float(loss), count + float(tokens)
        return total / count / math.log(2) / self.sample.bytes_per_token

    def calibrate(self, tables: Tables) -> None:
        """Shift the output rows so that the model predicts each token as often as it occurs.

        The last table, which holds the output rows, is changed in place.

        With p' the mean of the model's predicted distributions on the sample's first half, h the
        mean final hidden state there, and p the text's relative frequencies,

            E[t] += (log p[t] - log p'[t]) h / |h|^2

        adds log p[t] / p'[t] to the mean logit of t. If all hidden states were h, one round would
        suffice. A tied table is also the input table, so p' and h are recomputed in each round.
        """
        table = tables[list(self.paths)[-1]]
        for _ in range(ROUNDS):
            expected, hidden = self._expectations(tables)
            missing = np.log(self.sample.frequencies) - np.log(np.maximum(expected, 1e-30))
            direction = (hidden / (hidden @ hidden)).astype(np.float32)
            for part in row_slices(len(table)):
                table[part] += np.outer(missing[part].astype(np.float32), direction)

    def _expectations(
        self, tables: Tables
    ) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, " dim"]]:
        """The mean predicted distribution and the mean final hidden state."""
        params = self.with_tables(tables)
        rows, dim = tables[list(self.paths)[-1]].shape
        expected, hidden, count = np.zeros(rows), np.zeros(dim), 0.0
        with jax.set_mesh(self.mesh):
            for batch, mask in self.batches(part_of(self.sample.calibration, SCORED_WINDOWS)):
                found = _sums(self.graphdef, params, batch, mask)
                expected += to_host(found[0])
                hidden += to_host(found[1])
                count += float(mask.sum())
        return expected / count, hidden / count

    def with_tables(self, tables: Tables) -> nnx.State:
        """All parameters, with these tables."""
        return replaced(self.params, self.placed(tables))

    def placed(self, tables: Tables) -> dict[str, Float[Array, "row dim"]]:
        """Tables on the devices, by the path of the parameter that they are."""
        paths = {self.paths[name]: table for name, table in tables.items()}
        return {path: jax.device_put(paths[path], self.shardings[path]) for path in paths}

    def batches(
        self, windows: Int[np.ndarray, "window length"]
    ) -> Iterator[tuple[Int[Array, "batch length"], Bool[Array, "batch predicted"]]]:
        """Batches of equal size; rows that only pad the last one are masked."""
        size = -(-BATCH // batch_divisor(self.mesh)) * batch_divisor(self.mesh)
        sharding = batch_sharding(self.mesh)
        for start in range(0, len(windows), size):
            batch = windows[start : start + size]
            mask = np.arange(size) < len(batch)
            batch = np.pad(batch, ((0, size - len(batch)), (0, 0)))
            mask = np.tile(mask[:, None], (1, batch.shape[1] - 1))
            yield jax.device_put(batch, sharding), jax.device_put(mask, sharding)


def replaced(params: nnx.State, tables: Mapping[str, Float[Array, "row dim"]]) -> nnx.State:
    """Parameters of which some, by their path, are others."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: tables.get(parameter_path(path), leaf), params
    )


@partial(jax.jit, static_argnums=0)
def _sums(
    graphdef: nnx.GraphDef[Decoder],
    params: nnx.State,
    tokens: Int[Array, "batch length"],
    mask: Bool[Array, "batch predicted"],
) -> tuple[Float[Array, " row"], Float[Array, " dim"]]:
    """Sums of the predicted distributions and of the final hidden states."""
    model = nnx.merge(graphdef, params)
    hidden = model.hidden_states(tokens[:, :-1])

    def of_window(
        window: tuple[Float[Array, "predicted dim"], Bool[Array, " predicted"]],
    ) -> Float[Array, " row"]:
        states, real = window
        # A sum over positions, as a product: XLA on CPUs takes 20 times as long for the sum.
        return matmul(real.astype(jnp.float32), jax.nn.softmax(model.logits(states)))

    expected = jax.lax.map(of_window, (hidden, mask)).sum(axis=0)
    return expected, jnp.sum(hidden * mask[..., None], axis=(0, 1))
