"""Perplexity of a model on a corpus, normalised by tokens, words and bytes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Bool, Int
from tqdm import tqdm

from clp_jax.arguments import checked
from clp_jax.checkpoint.hf import load_model, model_tokenizer
from clp_jax.data.corpus.store import Corpus
from clp_jax.data.io.readers import read_documents
from clp_jax.errors import UserError
from clp_jax.evaluate.batches import global_batch, round_up
from clp_jax.limits import BatchSize, Inputs, Name, PathOrName, SequenceLength
from clp_jax.loss import window_loss
from clp_jax.mesh import inference_dtype, make_mesh, single_device_mesh
from clp_jax.models.decoder import Decoder


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


@checked
def evaluate_perplexity(
    model_path: PathOrName,
    data: Inputs,
    *,
    sequence_length: SequenceLength | None = None,
    batch_size: BatchSize = 8,
    text_field: Name = "text",
    dtype: str = "float32",
    mesh: Mesh | None = None,
) -> Perplexity:
    """Measure a stored model's perplexity on text.

    Args:
        model_path: Hugging Face folder, hub id or run folder.
        data: file patterns or hub data sets, as `read_documents` takes them.
        sequence_length: tokens per window; by default the model's positions, at most 1,024.
        batch_size: windows that are computed together.
        text_field: the field of a record that holds the text.
        dtype: of the computation, float32 or bfloat16.
        mesh: where the model is; all devices by default.

    Raises:
        UserError: the data contain no text, or the window is longer than the model can read.
    """
    compute_dtype, mesh = inference_dtype(dtype), mesh or make_mesh()
    corpus = Corpus.from_documents(
        read_documents(data, text_field=text_field), model_tokenizer(model_path)
    )
    model = load_model(model_path, mesh=mesh, compute_dtype=compute_dtype)
    return measure_perplexity(
        model,
        corpus,
        sequence_length=sequence_length or min(model.config.max_positions or 1024, 1024),
        batch_size=batch_size,
        mesh=mesh,
        progress=True,
    )


def measure_perplexity(
    model: Decoder,
    corpus: Corpus,
    *,
    sequence_length: int,
    batch_size: int,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> Perplexity:
    """Measure a model's perplexity on a corpus.

    The corpus is one sequence of tokens, with an end-of-text token before, between and after the
    documents. It is cut into windows of ``sequence_length`` predictions that do not overlap. Every
    token except the very first, end-of-text tokens included, is predicted exactly once and counts
    in the nll and in the number of tokens. Its context is the part of its window before it: that
    may belong to the previous document, and at the start of a window it is a single token, so
    longer windows give lower figures. Words and bytes are those of the documents.

    Batches are spread over ``mesh``, which the model is on (None: one device); in a multi-process
    run every process must call this. The program is compiled once for each model structure and
    batch shape.

    Raises:
        UserError: the corpus is empty or has an id for which the model has no row, or the window is
            longer than the model can read.
    """
    _check(model, corpus, sequence_length)
    mesh = mesh or single_device_mesh()
    graphdef, parameters = nnx.split(model)
    batch_size = round_up(batch_size, mesh)
    batches = -(-corpus.windows(sequence_length) // batch_size)
    nll, tokens = 0.0, 0
    with jax.set_mesh(mesh):
        for window_tokens, mask in tqdm(
            _batches(corpus, sequence_length, batch_size),
            desc="perplexity",
            total=batches,
            disable=not progress or jax.process_index() > 0,
            leave=False,
        ):
            if window_tokens.max() >= model.config.vocab_size:
                raise UserError(
                    f"The corpus has the id {window_tokens.max()}, but the model has only "
                    f"{model.config.vocab_size} rows: prepare the corpus with the model's "
                    "tokenizer."
                )
            total, _ = window_loss(
                graphdef,
                parameters,
                global_batch(window_tokens, mesh),
                global_batch(mask, mesh),
            )
            nll += float(total)
            tokens += int(mask.sum())
    return Perplexity(
        nll=nll,
        tokens=tokens,
        words=corpus.words,
        bytes=corpus.bytes,
        unknown_bytes=corpus.unknown_bytes,
        dtype=jnp.dtype(model.dtype).name,
    )


def _batches(
    corpus: Corpus, length: int, size: int
) -> Iterator[tuple[Int[np.ndarray, "size window"], Bool[np.ndarray, "size length"]]]:
    """Full batches of windows; rows without a window are masked."""
    windows = corpus.windows(length)
    for first in range(0, windows, size):
        tokens = np.zeros((size, length + 1), np.int32)
        mask = np.zeros((size, length), bool)
        for row, window in enumerate(range(first, min(first + size, windows))):
            tokens[row], mask[row] = corpus.window(window, length)
        yield tokens, mask


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


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
