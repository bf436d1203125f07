"""Vectors from outside the models, read, aligned or trained: for WECHSEL and FOCUS.

WECHSEL (arXiv 2112.06598) needs word vectors of both languages in one space. They come from
published files, such as fastText's for 157 languages; a dictionary of a few thousand word pairs
rotates the source's vectors onto the target's. FOCUS (arXiv 2305.14481) needs vectors of the
target's tokens, which are read from a file or trained with fastText on text of the target language.
"""

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer
from scipy.sparse import csr_array

from clp_jax.checkpoint.checksums import file_checksum
from clp_jax.errors import UserError
from clp_jax.files import regular_file
from clp_jax.tokenizer import Tokenizer
from clp_jax.transfer.config import TransferConfig

PCA_WORDS = 100_000
HEADER = re.compile(r"\d{1,9} \d{1,9}")
MAX_LINE = 1 << 20
"""Largest line in bytes; the longest lines of published files have some ten thousand."""


@dataclass(frozen=True)
class WordVectors:
    """The words of a language and their vectors.

    Attributes:
        words: in the order of the file; published files sort them by falling frequency. If a word
            occurs twice, a dictionary refers to the first.
        vectors: the vector of every word, float32.
    """

    words: list[str]
    vectors: Float[np.ndarray, "word dim"]

    def __post_init__(self) -> None:
        if len(self.words) != len(self.vectors):
            raise ValueError(f"{len(self.words)} words for {len(self.vectors)} vectors")


def read_word_vectors(file: str | Path) -> WordVectors:
    """Read all word vectors of a file as float32.

    Two formats are supported:

    * UTF-8 text, plain or ``.gz``: on every line a word and its numbers, separated by single
      spaces; the word itself may contain spaces. The first line may be ``count dim``; without it,
      the first word must not contain a space.
    * ``NAME.npy``, an array [words, dim] of floating-point numbers, with the words in ``NAME.txt``
      next to it, one word per line.

    Raises:
        UserError: the file is missing, damaged or in neither format, its number of words differs
            from the announced one, or a number is not finite.
    """
    file = Path(file)
    if file.suffix != ".npy":
        return _read_text(file)
    vectors = read_matrix(file)
    names = file.with_suffix(".txt")
    words = [line.rstrip("\r\n") for _, line in _lines(names)]
    if len(words) != len(vectors):
        raise UserError(
            f"{names} has {len(words)} words for the {len(vectors)} rows of {file.name}: "
            "write one word per line, in the order of the rows."
        )
    return WordVectors(words, vectors)


def vectors_checksum(file: str | Path) -> list[str]:
    """XXH3 sums of a file of vectors or word pairs, and of the words next to ``NAME.npy``.

    Raises:
        UserError: the file is missing.
    """
    names = Path(file).with_suffix(".txt")
    files = [regular_file(file), *([names] if Path(file).suffix == ".npy" else [])]
    return [file_checksum(file) for file in files if file.is_file()]


def _read_text(file: Path) -> WordVectors:
    words: list[str] = []
    values = bytearray()
    promised: int | None = None
    dim = 0
    for number, line in _lines(file):
        line = line.rstrip(" \r\n")
        if number == 1 and HEADER.fullmatch(line):
            promised, dim = map(int, line.split(" "))
            continue
        dim = dim or line.count(" ")
        word, *numbers = line.rsplit(" ", dim)
        try:
            row = np.array(numbers, np.float32)
            fits = len(row) == dim > 0 and np.isfinite(row).all()
        except ValueError:
            fits = False
        if not fits:
            raise UserError(
                f"{file}, line {number}: expected a word and {dim or 'its'} finite numbers."
            )
        words.append(word)
        values += row.tobytes()
    if promised not in (None, len(words)):
        raise UserError(
            f"{file}, line 1: announces {promised} words, but {len(words)} follow: download the "
            "file again, or correct this line if the file was shortened on purpose."
        )
    if not words:
        raise UserError(f"{file} contains no word vectors.")
    return WordVectors(words, np.frombuffer(values, np.float32).reshape(-1, dim))


def read_matrix(file: str | Path) -> Float[np.ndarray, "row dim"]:
    """Read a two-dimensional ``.npy`` array as float32.

    Raises:
        UserError: the file is missing or damaged, is not such an array, or a value is not finite.
    """
    regular_file(file)
    try:
        matrix = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{file} cannot be read as a .npy file ({error}).") from None
    fits = isinstance(matrix, np.ndarray) and matrix.ndim == 2 and matrix.size > 0
    if not (fits and matrix.dtype.kind == "f"):
        raise UserError(f"{file} is not an array [rows, dim] of floating-point numbers.")
    matrix = np.array(matrix, np.float32)
    unfit = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(unfit):
        raise UserError(f"{file}, row {unfit[0]} (from 0): a value is not finite in float32.")
    return matrix


def read_dictionary(file: str | Path) -> list[tuple[str, str]]:
    """Read word pairs: a source word and a target word on every line.

    A tab or spaces separate the two; with a tab, the words may contain spaces.

    Raises:
        UserError: the file is missing, empty or not UTF-8, or a line does not hold two words.
    """
    pairs = []
    for number, line in _lines(Path(file)):
        words = line.strip().split("\t") if "\t" in line.strip() else line.split()
        if len(words) != 2:
            raise UserError(
                f"{file}, line {number}: expected a source word and a target word, separated by a "
                f"tab or a space, but found {len(words)} words."
            )
        pairs.append((words[0].strip(), words[1].strip()))
    if not pairs:
        raise UserError(f"{file} contains no word pairs.")
    return pairs


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Line number, from 1, and text of every non-blank line."""
    regular_file(file)
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            for number, line in enumerate(iter(partial(stream.readline, MAX_LINE), b""), 1):
                if len(line) == MAX_LINE:
                    raise UserError(f"{file}, line {number} is longer than {MAX_LINE >> 20} MiB.")
                if not line.isspace():
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}, line {number}: not UTF-8 ({error.reason}).") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be read ({error}).") from None


def align(
    source: WordVectors, target: WordVectors, dictionary: Iterable[tuple[str, str]]
) -> tuple[WordVectors, WordVectors]:
    """Rotate the source's vectors onto the target's: orthogonal Procrustes over a dictionary.

    With the vectors of the pairs as the rows of A and B, the source's vectors are multiplied by

        R = argmin ||A R - B||  over orthogonal R  =  U V'   where  U S V' = A'B

    Each word of a pair is also tried in lower case and in title case; every distinct combination
    that both files contain counts as a pair. If the widths differ, the wider vectors are first
    projected, without centring, onto the leading principal axes of their first :data:`PCA_WORDS`
    words, one axis for each dimension of the narrower vectors.

    Returns:
        The source's and the target's words with vectors of the same width.

    Raises:
        UserError: the files contain no pair of the dictionary, or too few words to reduce the
            wider vectors.
    """
    ids = _paired_ids(source.words, target.words, dictionary)
    if not ids:
        raise UserError(
            "no pair of the dictionary has both of its words in the word vectors: "
            "put the source word first and the target word second."
        )
    dim = min(source.vectors.shape[1], target.vectors.shape[1])
    source, target = _reduce(source, dim), _reduce(target, dim)
    source_ids, target_ids = np.transpose(ids)
    a = source.vectors[source_ids].astype(np.float64)
    b = target.vectors[target_ids].astype(np.float64)
    u, _, v = np.linalg.svd(a.T @ b)
    return replace(source, vectors=source.vectors @ (u @ v).astype(np.float32)), target


def _paired_ids(
    source: Sequence[str], target: Sequence[str], dictionary: Iterable[tuple[str, str]]
) -> list[tuple[int, int]]:
    """The ids of both words of each pair, in every casing that both sides contain."""
    source_ids, target_ids = _first_places(source), _first_places(target)
    return [
        (source_ids[a], target_ids[b])
        for pair in dictionary
        for a, b in product(*(dict.fromkeys((w, w.lower(), w.title())) for w in pair))
        if a in source_ids and b in target_ids
    ]


def _first_places(words: Sequence[str]) -> dict[str, int]:
    return dict(zip(reversed(words), reversed(range(len(words))), strict=True))


def _reduce(words: WordVectors, dim: int) -> WordVectors:
    """Project onto the ``dim`` leading principal axes; vectors of that width are unchanged."""
    if words.vectors.shape[1] == dim:
        return words
    if len(words.vectors) < 2:
        raise UserError(
            "source_vectors and target_vectors differ in width, and the wider ones have only one "
            "word: give more of them."
        )
    _, axes = np.linalg.eigh(np.cov(words.vectors[:PCA_WORDS], rowvar=False))
    return replace(words, vectors=words.vectors @ axes[:, -dim:].astype(np.float32))


BLOCK_WORDS = 65_536
LINE_TOKENS = 1024
MINIMUM_COUNT = 10
DIM = 100
MOST_BUCKETS, BUCKETS_PER_CHARACTER = 2_000_000, 16
"""Buckets of n-gram vectors: fastText's number, or for small vocabularies enough to avoid most
collisions."""


def token_vectors(
    words: WordVectors, tokenizer: Tokenizer, rows: int
) -> Float[np.ndarray, "row dim"]:
    """Vectors of tokens, each the weighted mean of the words that contain it.

    This is WECHSEL without character n-grams (arXiv 2112.06598):

        x[t] = sum_w f[w] W[w] / sum_w f[w]

    over the words w whose tokens, alone or after a space, include t. The files contain no
    frequencies, but are sorted by them, so Zipf's law supplies f[w] = 1 / rank of w in the file.

    Args:
        words: word vectors of the tokenizer's language, the most frequent word first.
        tokenizer: splits the words; no special tokens are added.
        rows: number of rows of the result, greater than the highest id that occurs.

    Returns:
        One vector per id, float32, summed in float64; zeros for tokens that no word contains.

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
    """A [token, word] matrix: 1 where the token occurs in the word, however often."""
    texts = [*words, *(f" {word}" for word in words)]
    ids = tokenizer.encode_batch(texts)
    tokens = np.fromiter(chain.from_iterable(ids), np.int64)
    if tokens.max(initial=-1) >= rows:
        raise UserError(
            f"the tokenizer splits words into ids up to {tokens.max()}, but there are only {rows} "
            "rows: give the model its own tokenizer."
        )
    columns = np.repeat(np.tile(np.arange(len(words)), 2), [len(split) for split in ids])
    occurs = csr_array((np.ones(len(tokens)), (tokens, columns)), shape=(rows, len(words)))
    occurs.data[:] = 1
    return occurs


def read_token_vectors(file: str | Path, rows: int) -> Float[np.ndarray, "row dim"]:
    """Read token vectors from a ``.npy`` array with one row per target id, as float32.

    Raises:
        UserError: the file is not such an array, its number of rows is not ``rows``, or a value is
            not finite.
    """
    vectors = read_matrix(file)
    if len(vectors) != rows:
        raise UserError(
            f"{file} has {len(vectors)} rows, but the target vocabulary has {rows} ids: "
            "give one row per id."
        )
    return vectors


def train_token_vectors(
    documents: Iterable[Sequence[int] | Integer[np.ndarray, " _"]],
    tokens: Sequence[str],
    *,
    seed: int,
) -> Float[np.ndarray, "row dim"]:
    """Train FOCUS's token vectors: fastText on text with tokens as words (arXiv 2305.14481).

    The model is a continuous bag of words with 100 dimensions, 10 negatives and three epochs.
    fastText also learns from the character n-grams of its words, here of the tokens' strings as the
    vocabulary spells them. As in fastText, documents are split into lines of at most 1,024 tokens.
    Training uses one thread: the same input and seed give the same bytes.

    Args:
        documents: ids of target text; they take eight bytes per token during training.
        tokens: the token of every id, as ``convert_ids_to_tokens`` returns it.
        seed: seed of the initial vectors and of the sampling.

    Returns:
        One vector per id, float32; zeros for tokens that occur fewer than ten times.

    Raises:
        UserError: gensim is not installed, or no token occurs ten times.
    """
    try:
        from gensim.models import FastText
    except ImportError:
        raise UserError(
            "gensim is not installed, but training token vectors needs it: run "
            "`pip install clp-jax[vectors]`."
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
        # FOCUS uses fastText's defaults here, which differ from gensim's:
        alpha=0.05,
        sample=1e-4,
        ns_exponent=0.5,
    )
    model.build_vocab(lines)
    if not len(model.wv):
        raise UserError(
            f"no token occurs {MINIMUM_COUNT} times in the text for token vectors: add text."
        )
    model.train(lines, total_examples=model.corpus_count, epochs=model.epochs)
    index = model.wv.key_to_index
    trained = [id for id, token in enumerate(tokens) if token in index]
    vectors = np.zeros((len(tokens), DIM), np.float32)
    vectors[trained] = model.wv.vectors[[index[tokens[id]] for id in trained]]
    return vectors


class Vectors(NamedTuple):
    """Vectors from outside the models, one row per id; zeros for tokens that have none.

    Attributes:
        source: vectors of the source's tokens from word vectors, in one space with ``target``.
        target: vectors of the target's tokens from word vectors.
        tokens: vectors of the target's tokens, read or trained on their contexts.
    """

    source: Float[np.ndarray, "source dim"] | None = None
    target: Float[np.ndarray, "target dim"] | None = None
    tokens: Float[np.ndarray, "target token_dim"] | None = None


def read_vectors(
    config: TransferConfig, source: Tokenizer, helper: Tokenizer, text: Sequence[str]
) -> Vectors:
    """Read the vectors that the configuration names, and train those that ``focus`` still lacks.

    Nothing is trained without text. If training fails, ``auto`` continues without token vectors.

    Raises:
        UserError: a file is missing or damaged or does not fit the tokenizer, or the method is
            ``focus`` and its vectors cannot be trained.
    """
    rows = [source.rows, helper.rows]
    source_vectors = target_vectors = tokens = None
    if config.source_vectors and config.target_vectors:
        words = read_word_vectors(config.source_vectors), read_word_vectors(config.target_vectors)
        if config.dictionary:
            words = align(*words, read_dictionary(config.dictionary))
        source_vectors = token_vectors(words[0], source, rows[0])
        target_vectors = token_vectors(words[1], helper, rows[1])
    if config.token_vectors:
        tokens = read_token_vectors(config.token_vectors, rows[1])
    elif config.method in ("focus", "auto") and text:
        names = [helper.token(id) or "" for id in range(rows[1])]
        ids = helper.encode_batch(text)
        try:
            tokens = train_token_vectors(ids, names, seed=config.seed)
        except UserError:
            if config.method == "focus":
                raise
    return Vectors(source_vectors, target_vectors, tokens)
