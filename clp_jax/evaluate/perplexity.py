"""Perplexity of a model on a corpus, normalised by tokens, words and bytes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float64
from tqdm import tqdm

from clp_jax.arguments import checked
from clp_jax.checkpoint.hf import load_model, model_tokenizer
from clp_jax.data.corpus.store import Corpus, count_words
from clp_jax.data.io.readers import read_documents
from clp_jax.errors import UserError
from clp_jax.evaluate.batches import global_batch, round_up
from clp_jax.evaluate.figures import Perplexity
from clp_jax.evaluate.tables import markdown_table
from clp_jax.evaluate.windows import SHORTEST, Window, cut, pad
from clp_jax.limits import BatchSize, Inputs, Name, PathOrName, SequenceLength
from clp_jax.loss import window_losses
from clp_jax.mesh import inference_dtype, make_mesh, single_device_mesh, to_host
from clp_jax.models.decoder import Decoder
from clp_jax.tokenizer import Tokenizer


@checked
def evaluate_perplexity(
    model_path: PathOrName,
    data: Inputs,
    *,
    sequence_length: SequenceLength | None = None,
    stride: SequenceLength | None = None,
    per_document: bool = False,
    batch_size: BatchSize = 8,
    text_field: Name = "text",
    dtype: str = "float32",
    mesh: Mesh | None = None,
) -> Perplexity:
    """Measure a stored model's perplexity on text.

    The text is one stream: an end-of-text token before, between and after the documents, and each
    token but the very first is predicted once. Or each document is read alone.

    Args:
        model_path: Hugging Face folder, hub id or run folder.
        data: file patterns or hub data sets, as `read_documents` takes them.
        sequence_length: tokens per window; by default the model's positions, at most 1,024.
        stride: tokens from window to window; those of a window that an earlier one has predicted
            are only context. By default ``sequence_length``: windows do not overlap.
        per_document: predict each document from itself alone, after the tokens that open a text for
            its tokenizer (bos), or else after an end-of-text token; none of these is predicted.
        batch_size: windows that are computed together.
        text_field: the field of a record that holds the text.
        dtype: of the computation, float32 or bfloat16.
        mesh: where the model is; all devices by default.

    Raises:
        UserError: the data contain no text, the window is longer than the model can read, or the
            stride is longer than the window.
    """
    [measured] = evaluate_perplexities(
        [str(model_path)],
        {"": data},
        sequence_length=sequence_length,
        stride=stride,
        per_document=per_document,
        batch_size=batch_size,
        text_field=text_field,
        dtype=dtype,
        mesh=mesh,
    )
    return measured.perplexity


@dataclass(frozen=True)
class Measured:
    """The perplexity of a model on a text, and how the text was read."""

    model: str
    data: str
    """Name of the text; empty if it has none."""
    sequence_length: int
    stride: int
    per_document: bool
    perplexity: Perplexity

    def to_dict(self) -> dict[str, Any]:
        """All figures and their 95% intervals by name, ready for JSON."""
        settings = {key: value for key, value in vars(self).items() if key != "perplexity"}
        figures = self.perplexity
        return settings | figures.to_dict() | {"intervals": figures.intervals}


def evaluate_perplexities(
    models: Sequence[str],
    data: Mapping[str, Inputs],
    *,
    sequence_length: int | None = None,
    stride: int | None = None,
    per_document: bool = False,
    batch_size: int = 8,
    text_field: str = "text",
    dtype: str = "float32",
    mesh: Mesh | None = None,
) -> list[Measured]:
    """Measure the perplexity of each model on each text; see `evaluate_perplexity`.

    Args:
        models: Hugging Face folders, hub ids or run folders.
        data: file patterns or hub data sets, by the name of the text.
        sequence_length: as there, and so are the others.

    Returns:
        The texts in their order, and for each of them the models in theirs.

    Raises:
        UserError: as there.
    """
    compute_dtype, mesh = inference_dtype(dtype), mesh or make_mesh()
    texts = {name: [*read_documents(files, text_field)] for name, files in data.items()}
    words = {name: [count_words(text) for text in found] for name, found in texts.items()}
    found: dict[tuple[str, str], Measured] = {}
    for path in models:
        tokenizer = Tokenizer.of(model_tokenizer(path))
        corpora = {name: Corpus.from_documents(text, tokenizer) for name, text in texts.items()}
        model = load_model(path, mesh=mesh, compute_dtype=compute_dtype)
        length = sequence_length or min(model.config.max_positions or 1024, 1024)
        for name, corpus in corpora.items():
            perplexity = measure_documents(
                model,
                corpus,
                words[name],
                sequence_length=length,
                stride=stride or length,
                opening=len(tokenizer.opening) if per_document else None,
                batch_size=batch_size,
                mesh=mesh,
            )
            found[name, path] = Measured(
                path, name, length, stride or length, per_document, perplexity
            )
        del model  # Before the next one is loaded.
    return [found[name, path] for name in data for path in models]


def render_perplexities(measured: Sequence[Measured]) -> str:
    """A table of models and texts, with intervals, and how the texts were read."""

    def shown(one: Measured, figure: str, form: str) -> str:
        value = format(getattr(one.perplexity, figure), form)
        if (ends := one.perplexity.intervals.get(figure)) is None:
            return value
        return f"{value} ({ends[0]:{form}} to {ends[1]:{form}})"

    rows = [
        {
            "text": one.data,
            "model": one.model,
            "tokens": f"{one.perplexity.tokens:,}",
            **{
                f"per {unit}": shown(one, f"{unit}_perplexity", ",.4g")
                for unit in ("token", "word", "byte")
            },
            "bits per byte": shown(one, "bits_per_byte", ".4f"),
        }
        for one in measured
    ]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    table = markdown_table(columns, [[row[name] for name in columns] for row in rows])
    windows = {
        f"windows of {one.sequence_length:,} tokens, {one.stride:,} from one to the next"
        for one in measured
    }
    text = "each document alone" if measured[0].per_document else "documents in one stream"
    intervals = "95% intervals: bootstrap over documents"
    how = [measured[0].perplexity.dtype, text, *sorted(windows), intervals]
    return f"Perplexity ({'; '.join(how)}):\n\n{table}"


def measure_documents(
    model: Decoder,
    corpus: Corpus,
    words: Sequence[int],
    *,
    sequence_length: int,
    stride: int,
    opening: int | None,
    batch_size: int,
    mesh: Mesh,
) -> Perplexity:
    """Measure a model's perplexity on a corpus in memory, document by document.

    Args:
        model: the model, which is on ``mesh``.
        corpus: the text.
        words: of each document.
        sequence_length: tokens per window.
        stride: tokens from window to window.
        opening: how many tokens open a document, if each is read alone; None: one stream.
        batch_size: windows that are computed together.
        mesh: where the model is.

    Raises:
        UserError: see `measure_perplexity`; or the stride is longer than the window.
    """
    if stride > sequence_length:
        raise UserError(
            f"stride {stride} is longer than the window of {sequence_length} tokens, so tokens "
            "between two windows would not be predicted: choose a shorter one."
        )
    assert corpus.lengths is not None
    lengths = corpus.lengths.astype(np.int64)
    stops = 1 + np.cumsum(lengths[:, 0])
    starts = stops - lengths[:, 0]
    texts = [(0, 1, len(corpus))]
    if opening is not None:
        texts = [
            (start if opening else start - 1, start + opening, stop)
            for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
        ]
    windows = [window for text in texts for window in cut(*text, sequence_length, stride)]
    windows.sort(key=lambda window: window.start - window.stop)
    nll, counted = np.zeros(len(corpus)), np.zeros(len(corpus), np.int64)
    for window, losses in _losses(
        model,
        corpus,
        windows,
        sequence_length=sequence_length,
        shortest=sequence_length if opening is None else SHORTEST,
        batch_size=batch_size,
        mesh=mesh,
        progress=True,
    ):
        nll[window.scored : window.stop] = losses
        counted[window.scored : window.stop] = 1
    sums = [np.add.reduceat(each, starts) for each in (nll, counted)]
    return _perplexity(
        model,
        corpus,
        float(nll.sum()),
        int(counted.sum()),
        np.stack([*sums, words, lengths[:, 1]], axis=1),
    )


def measure_perplexity(
    model: Decoder,
    corpus: Corpus,
    *,
    sequence_length: int,
    batch_size: int,
    mesh: Mesh | None = None,
) -> Perplexity:
    """Measure a model's perplexity on a corpus.

    The corpus is one sequence of tokens, with an end-of-text token before, between and after the
    documents. It is cut into windows of ``sequence_length`` predictions that do not overlap. Every
    token except the very first, end-of-text tokens included, is predicted exactly once and counts
    in the nll and in the number of tokens. Its context is the part of its window before it: that
    may belong to the previous document, and at the start of a window it is a single token, so
    longer windows give lower figures. Words and bytes are those of the documents. Of a corpus of
    examples the answers are predicted, each from its own question.

    Batches are spread over ``mesh``, which the model is on (None: one device); in a multi-process
    run every process must call this. The program is compiled once for each model structure and
    batch shape.

    Raises:
        UserError: the corpus is empty or has an id for which the model has no row, or the window is
            longer than the model can read.
    """
    nll, tokens = 0.0, 0
    windows = [
        Window(*corpus.span(index, sequence_length))
        for index in range(corpus.windows(sequence_length))
    ]
    if corpus.answers is not None:
        windows.sort(key=lambda window: window.start - window.stop)
    for window, losses in _losses(
        model,
        corpus,
        windows,
        sequence_length=sequence_length,
        shortest=sequence_length if corpus.answers is None else SHORTEST,
        batch_size=batch_size,
        mesh=mesh or single_device_mesh(),
    ):
        nll += float(losses.sum())
        tokens += window.stop - window.scored
    return _perplexity(model, corpus, nll, tokens)


def _losses(
    model: Decoder,
    corpus: Corpus,
    windows: Sequence[Window],
    *,
    sequence_length: int,
    shortest: int,
    batch_size: int,
    mesh: Mesh,
    progress: bool = False,
) -> Iterator[tuple[Window, Float64[np.ndarray, " scored"]]]:
    """The negative log-likelihoods in nats of the tokens that each window predicts."""
    _check(model, corpus, sequence_length)
    graphdef, parameters = nnx.split(model)
    size = round_up(batch_size, mesh)
    with (
        jax.set_mesh(mesh),
        tqdm(
            total=len(windows),
            desc="perplexity",
            unit="window",
            disable=not progress or jax.process_index() > 0,
            leave=False,
        ) as bar,
    ):
        for batch, tokens in pad(corpus, windows, size, sequence_length, shortest):
            if tokens.max() >= model.config.vocab_size:
                raise UserError(
                    f"The corpus has the id {tokens.max()}, but the model has only "
                    f"{model.config.vocab_size} rows: prepare the corpus with the model's "
                    "tokenizer."
                )
            rows = to_host(window_losses(graphdef, parameters, global_batch(tokens, mesh)))
            for window, row in zip(batch, rows.astype(np.float64), strict=False):
                yield window, row[window.scored - window.start - 1 : window.stop - window.start - 1]
            bar.update(len(batch))


def _perplexity(
    model: Decoder,
    corpus: Corpus,
    nll: float,
    tokens: int,
    documents: Float64[np.ndarray, "documents 4"] | None = None,
) -> Perplexity:
    return Perplexity(
        nll=nll,
        tokens=tokens,
        words=corpus.words,
        bytes=corpus.bytes,
        unknown_bytes=corpus.unknown_bytes,
        dtype=jnp.dtype(model.dtype).name,
        documents=documents,
    )


def _check(model: Decoder, corpus: Corpus, sequence_length: int) -> None:
    if not corpus.words or corpus.windows(sequence_length) == 0:
        raise UserError(
            "The data contain no text to measure a perplexity on: give files with text."
        )
    positions = model.config.max_positions
    if positions is not None and sequence_length > positions:
        raise UserError(
            f"sequence_length {sequence_length} is longer than the model's {positions} "
            "positions: choose a shorter one."
        )
