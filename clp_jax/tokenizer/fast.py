"""Byte-level BPE with tiktoken, where it is certain to give the ids of the `tokenizers` library.

Both split a text into pieces by a regular expression. Within a piece, both repeatedly merge the
neighbours with the lowest rank, leftmost first. They differ in two ways. tiktoken merges any
neighbours that spell a token, while `tokenizers` has a list of pairs; and tiktoken first looks up
the whole piece. Neither matters if tiktoken gets only tokens whose own bytes merge into them. Where
two neighbours spell such a token, their bytes have been merged exactly as in the token alone, and
there they form two parts only once: just before the pair that completes it.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
from jaxtyping import UInt32
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import WhitespaceSplit

from clp_jax.tokenizer.expressions import Pieces, cuts_alike, read_pieces
from clp_jax.tokenizer.letters import LETTERS, as_bytes

if TYPE_CHECKING:
    import tiktoken

_PART = 1 << 20
"""Minimum characters to encode at a time; the maximum is twice this."""

_CUT = re.compile(r"(?<=[^\W_])(?= )")
"""Between a letter or digit and a space: no piece crosses it, and no match depends on it."""

_SPECIAL = "<|special|>"
"""tiktoken looks for special tokens even if none is allowed. If it has none, it finds an empty one
before each byte, which takes as long as all the rest."""

_NAMES = 1000
"""Number of token names to encode as one text."""

_NEW = "\U00010e80\U00010570\U00011f04\U0002ebf0\U000105c0\U00010940\U00011de0"
"""A letter from each version of Unicode from 13 to 17, and a digit from the last: libraries that
split alike next to these know the same characters."""

_SAMPLE = [
    f"{a}{c} {c}{c}1{c}\n{c}'{a}"
    for a in ("a", "S", "ll", "\u0301", "12345")
    for c in f"aß7½²Ⅷ ,。'\t\r\n\u00a0{_NEW}"
]


@dataclass(frozen=True)
class FastEncoder:
    """An encoder of text to ids.

    Attributes:
        encoding: The tiktoken encoding, whose ids are ranks.
        ids: The id of each rank.
        pieces: The rule for splitting a text.
        normalise: The tokenizer's normaliser, applied to text that is not all ASCII.
        added: Spellings of added tokens, as given and normalised, and whether each is special.
    """

    encoding: "tiktoken.Encoding"
    ids: UInt32[np.ndarray, " _"]
    pieces: Pieces
    normalise: Callable[[str], str]
    added: Mapping[str, bool]

    def encode_batch(
        self, texts: Sequence[str], *, special: bool
    ) -> list[UInt32[np.ndarray, " _"] | None]:
        """The ids of each text, on all CPU cores; None for a text that tiktoken cannot encode.

        Such a text spells an added token, has very long white space, or is long and has none.

        Args:
            texts: The texts.
            special: Whether special tokens count as added tokens rather than text.
        """
        added = [name for name, is_special in self.added.items() if special or not is_special]
        encode = partial(self._encode, added)
        wanted = os.environ.get("RAYON_NUM_THREADS", "")  # the library's, set by workers
        threads = int(wanted) if wanted.isdecimal() else os.cpu_count() or 1
        if min(threads, len(texts)) <= 1:
            return [*map(encode, texts)]
        with ThreadPoolExecutor(threads) as pool:
            return [*pool.map(encode, texts)]

    def _encode(self, added: Sequence[str], text: str) -> UInt32[np.ndarray, " _"] | None:
        try:
            ranks = [self._ranks(added, part) for part in _parts(self.pieces.begin(text))]
        except ValueError:
            return None
        return self.ids[np.concatenate(ranks)]

    def _ranks(self, added: Sequence[str], part: str) -> UInt32[np.ndarray, " _"]:
        normal = part if part.isascii() else self.normalise(part)
        if any(spelling in part or spelling in normal for spelling in added):
            raise ValueError("an added token")
        return self.encoding.encode_to_numpy(normal, disallowed_special=())


def fast_encoder(backend: tokenizers.Tokenizer) -> FastEncoder | None:
    """The encoder of a tokenizer, or None if it is not certain to give the same ids.

    Args:
        backend: The tokenizer. A sample tests whether it knows the same characters as tiktoken.
    """
    import tiktoken

    state = json.loads(backend.to_str())
    pieces, tokens = read_pieces(state["pre_tokenizer"]), _tokens(state["model"])
    normalise = backend.normalizer.normalize_str if state["normalizer"] else str
    added = {
        spelling: token["special"]
        for token in state["added_tokens"]
        for spelling in (token["content"], normalise(token["content"]))
    }
    if (
        pieces is None
        or not tokens
        or state["normalizer"] not in (None, {"type": "NFC"})
        or any(" " in spelling.lstrip(" ") for spelling in added)  # _CUT might split it
        or not cuts_alike(pieces, backend.pre_tokenizer, _SAMPLE)
    ):
        return None
    encoding = tiktoken.Encoding(
        "by rank",
        pat_str=pieces.expression,
        mergeable_ranks={token: rank for rank, token in enumerate(tokens)},
        special_tokens={_SPECIAL: len(tokens)},
    )
    return FastEncoder(encoding, np.array([*tokens.values()], np.uint32), pieces, normalise, added)


def _tokens(model: Mapping[str, Any]) -> dict[bytes, int]:
    """The tokens to give to tiktoken, with their ids, in the order of their ranks; may be empty."""
    vocabulary = model["vocab"]
    if (
        model["type"] != "BPE"
        or model["dropout"]
        or model["continuing_subword_prefix"]
        or model["end_of_word_suffix"]
        or not vocabulary.keys() >= {*LETTERS}
    ):
        return {}
    merges = [(left, right) for left, right in model["merges"]]
    ranked = [name for name, _ in groupby(left + right for left, right in merges)]
    if len({*ranked}) < len(ranked):
        return {}
    parts = _parts_alone(vocabulary, merges)
    names = [*LETTERS, *(name for name in ranked if parts.get(name) == 1)]
    if model["ignore_merges"]:  # a piece that is a token is looked up, never merged from two
        if 2 in parts.values():
            return {}
        names += [name for name, count in parts.items() if count > 1]
    return {as_bytes(name): vocabulary[name] for name in names}


def _parts_alone(vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The number of tokens that the bytes of each token become."""
    bpe = tokenizers.Tokenizer(BPE(vocabulary, merges, cache_capacity=0))
    bpe.pre_tokenizer = WhitespaceSplit()
    letters = {*LETTERS}
    names = [name for name in vocabulary if name and letters.issuperset(name)]
    lines = [names[start : start + _NAMES] for start in range(0, len(names), _NAMES)]
    encodings = bpe.encode_batch([" ".join(line) for line in lines], add_special_tokens=False)
    parts = [Counter(encoding.word_ids) for encoding in encodings]
    return {names[i]: parts[i // _NAMES][i % _NAMES] for i in range(len(names))}


def _parts(text: str) -> Iterator[str]:
    """A text, split at places that do not affect its ids.

    Raises:
        ValueError: there is no such place.
    """
    start = 0
    while len(text) - start > 2 * _PART:
        cut = _CUT.search(text, start + _PART, start + 2 * _PART)
        if cut is None:
            raise ValueError("no space")
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]
