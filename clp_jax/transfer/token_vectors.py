"""Token vectors from outside the models: made from word vectors (WECHSEL) or trained (FOCUS)."""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer
from scipy.sparse import csr_array

from clp_jax.errors import UserError
from clp_jax.tokenizer import Tokenizer
from clp_jax.transfer.word_vectors import WordVectors, read_matrix

BLOCK_WORDS = 65_536
LINE_TOKENS = 1024
MINIMUM_COUNT = 10
DIM = 100
MOST_BUCKETS, BUCKETS_PER_CHARACTER = 2_000_000, 16
"""Vectors of n-grams: fastText's number, or for small vocabularies as many as rarely collide."""


def token_vectors(
    words: WordVectors, tokenizer: Tokenizer, rows: int
) -> Float[np.ndarray, "row dim"]:
    """Vectors of tokens, each the weighted mean of the words in which it occurs.

    This is WECHSEL without character n-grams (arXiv 2112.06598):

        x[t] = sum_w f[w] W[w] / sum_w f[w]

    over the words w whose tokens, alone or after a space, include t. The files hold no frequencies,
    but are sorted by them, so Zipf's law stands in: f[w] = 1 / rank of w in the file.

    Args:
        words: word vectors of the tokenizer's language, the most frequent word first.
        tokenizer: splits the words; no special tokens are added.
        rows: number of rows of the result, more than the highest id that occurs.

    Returns:
        A vector for every id, float32, summed in float64; zeros for tokens that no word holds.

    Raises:
        UserError: a token's id has no row.
    """
    sums = np.zeros((rows, words.vectors.shape[1]))
    totals = np.zeros((rows, 1))
    for start in range(0, len(words.words), BLOCK_WORDS):
        block = slice(start, start + BLOCK_WORDS)
        occurs = _occurrences(words.words[block], tokenizer, rows)
        vectors = words.vectors[block].astype(np.float64)
        frequency = 1 / np.arange(start + 1, start + 1 + len(vectors))[:, None]
        sums += occurs @ (frequency * vectors)
        totals += occurs @ frequency
    return (sums / np.where(totals == 0, 1, totals)).astype(np.float32)


def _occurrences(words: Sequence[str], tokenizer: Tokenizer, rows: int) -> csr_array:
    """Which token, a row, occurs in which word, a column: 1, however often."""
    texts = [*words, *(f" {word}" for word in words)]
    ids = tokenizer.encode_batch(texts)
    tokens = np.fromiter(chain.from_iterable(ids), np.int64)
    if tokens.max(initial=-1) >= rows:
        raise UserError(
            f"the tokenizer splits words into ids up to {tokens.max()}, but there are only {rows} "
            "rows: the tokenizer is not the model's."
        )
    columns = np.repeat(np.tile(np.arange(len(words)), 2), [len(split) for split in ids])
    occurs = csr_array((np.ones(len(tokens)), (tokens, columns)), shape=(rows, len(words)))
    occurs.data[:] = 1
    return occurs


def read_token_vectors(file: str | Path, rows: int) -> Float[np.ndarray, "row dim"]:
    """Read token vectors of one's own: a ``.npy`` array, a row a target id, as float32.

    Raises:
        UserError: it is no such array, has another number of rows than ``rows``, or a value is not
            finite.
    """
    vectors = read_matrix(file)
    if len(vectors) != rows:
        raise UserError(
            f"{file} has {len(vectors)} rows, but the target vocabulary has {rows} ids: "
            "give one row an id."
        )
    return vectors


def train_token_vectors(
    documents: Iterable[Sequence[int] | Integer[np.ndarray, " _"]],
    tokens: Sequence[str],
    *,
    seed: int,
) -> Float[np.ndarray, "row dim"]:
    """Train FOCUS's token vectors: fastText on text whose words are tokens (arXiv 2305.14481).

    A continuous bag of words with 100 dimensions, 10 negatives and three epochs. fastText also
    learns from the character n-grams of its words, here of the tokens' strings as the vocabulary
    spells them. Like fastText, a document is cut into lines of at most 1,024 tokens. One thread
    trains: the same input and seed give the same bytes.

    Args:
        documents: ids of target text; held as eight bytes a token meanwhile.
        tokens: the token of every id, as ``convert_ids_to_tokens`` gives it.
        seed: of the initial vectors and of the sampling.

    Returns:
        A vector for every id, float32; zeros for tokens that occur fewer than ten times.

    Raises:
        UserError: gensim is not installed, or no token occurs ten times.
    """
    try:
        from gensim.models import FastText
    except ImportError:
        raise UserError(
            "gensim is not installed: training token vectors needs `pip install clp-jax[vectors]`."
        ) from None
    lines = [
        [tokens[id] for id in document[start : start + LINE_TOKENS]]
        for document in documents
        for start in range(0, len(document), LINE_TOKENS)
    ]
    model = FastText(
        vector_size=DIM,
        epochs=3,
        negative=10,
        min_count=MINIMUM_COUNT,
        seed=seed,
        workers=1,
        bucket=min(MOST_BUCKETS, max(sum(map(len, tokens)), 1) * BUCKETS_PER_CHARACTER),
        # What FOCUS leaves to fastText, whose defaults are not gensim's:
        alpha=0.05,
        sample=1e-4,
        ns_exponent=0.5,
    )
    model.build_vocab(lines)
    if not len(model.wv):
        raise UserError(
            f"no token occurs {MINIMUM_COUNT} times in the text for token vectors: give more text."
        )
    model.train(lines, total_examples=model.corpus_count, epochs=model.epochs)
    index = model.wv.key_to_index
    trained = [id for id, token in enumerate(tokens) if token in index]
    vectors = np.zeros((len(tokens), DIM), np.float32)
    vectors[trained] = model.wv.vectors[[index[tokens[id]] for id in trained]]
    return vectors
