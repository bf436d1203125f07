"""The pre-tokenizers of llama.cpp: which of them splits text as a tokenizer does, or nearly so.

llama.cpp knows a pre-tokenizer by its name, which stands for regular expressions that it applies
one after another, each to the pieces that the one before left. Its own converter recognises a
tokenizer by a hash of the ids of one text; here the expressions are compared.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import tokenizers

from clp_jax.errors import UserError
from clp_jax.tokenizer import Tokenizer
from clp_jax.tokenizer.expressions import BLOOM, GPT_2, GPT_4, QWEN_2
from clp_jax.tokenizer.owner import steps

_DIGIT = r"\p{N}"
_CONTRACTION = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_CASED = [
    rf"[^\r\n\p{{L}}\p{{N}}]?((?=[\p{{L}}])([^a-z])){first}((?=[\p{{L}}])([^A-Z])){second}"
    for first, second in ("*+", "+*")
]
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = "|".join([*_CASED, _DIGIT, _REST])
_GPT_4O = "|".join([*(f"{cased}{_CONTRACTION}?" for cased in _CASED), r"\p{N}{1,3}", _REST])
_QWEN_35 = "|".join(
    [
        _CONTRACTION,
        r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
        _DIGIT,
        r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
MOST_TEXT = 10_000
"""The number of lines that are compared."""


class PreTokenizer(NamedTuple):
    """A pre-tokenizer of llama.cpp.

    Attributes:
        name: Value of ``tokenizer.ggml.pre``.
        expressions: Its regular expressions, one after another.
        ignore_merges: Whether a piece that is a token is never merged from smaller ones, which
            llama.cpp decides by the name.
    """

    name: str
    expressions: tuple[str, ...]
    ignore_merges: bool = False


PRE_TOKENIZERS = (
    PreTokenizer("gpt-2", (GPT_2,)),
    PreTokenizer("smollm", (_DIGIT, GPT_2)),
    PreTokenizer("dbrx", (GPT_4,)),
    PreTokenizer("llama-bpe", (GPT_4,), ignore_merges=True),
    PreTokenizer("qwen2", (QWEN_2,)),
    PreTokenizer("bloom", (BLOOM,)),
    PreTokenizer("tekken", (_TEKKEN,), ignore_merges=True),
    PreTokenizer("gpt-4o", (_GPT_4O,)),
    PreTokenizer("qwen35", (_QWEN_35,)),
)
"""Of the names that stand for the same, the first one that llama.cpp had."""


class Choice(NamedTuple):
    """The pre-tokenizer for a tokenizer.

    Attributes:
        name: Its name in llama.cpp.
        same: Whether it splits every text as the tokenizer does.
        differing: The share of the lines of the user's text whose ids differ; None without text.
        lines: The number of these lines.
    """

    name: str
    same: bool
    differing: float | None = None
    lines: int = 0


def choose_pre_tokenizer(tokenizer: Tokenizer, texts: Iterable[str] | None = None) -> Choice:
    """The pre-tokenizer that splits as a byte-level tokenizer does, or the nearest on some text.

    Args:
        tokenizer: A tokenizer with byte-level BPE.
        texts: Documents of the user; the first `MOST_TEXT` lines are compared.

    Raises:
        UserError: llama.cpp has none that splits alike, and there is no text to compare on.
    """
    state = tokenizer.state
    own = _expressions(state["pre_tokenizer"])
    ignore_merges = bool(state["model"].get("ignore_merges"))
    same = [
        known
        for known in PRE_TOKENIZERS
        if known.expressions == own and known.ignore_merges == ignore_merges
    ]
    if texts is None:
        if not same:
            raise UserError(
                f"llama.cpp has no pre-tokenizer that splits text as the tokenizer of "
                f"{tokenizer.name} does: give text with --data, on which the nearest is found."
            )
        return Choice(same[0].name, True)
    lines = _lines(texts, adds_space=begins_with_space(state))
    ids = [encoding.ids for encoding in _encode(tokenizer.backend, lines)]
    differing = {
        known: sum(
            theirs.ids != ours
            for theirs, ours in zip(_encode(_emulated(state, known), lines), ids, strict=True)
        )
        for known in same or PRE_TOKENIZERS
    }
    nearest = min(differing, key=lambda known: differing[known])
    return Choice(nearest.name, bool(same), differing[nearest] / len(lines), len(lines))


def begins_with_space(state: Mapping[str, Any]) -> bool:
    """Whether a byte-level tokenizer puts a space before a text, which llama.cpp never does."""
    return any(
        step["type"] == "ByteLevel" and step["add_prefix_space"]
        for step in steps(state["pre_tokenizer"])
    )


def _lines(texts: Iterable[str], *, adds_space: bool) -> list[str]:
    """The first lines of some documents, each with its end, and a space before it if need be."""
    found = (line for text in texts for line in text.splitlines(keepends=True) if line.strip())
    lines = [*islice(found, MOST_TEXT)]
    return [line if line.startswith(" ") else f" {line}" for line in lines] if adds_space else lines


def _encode(backend: tokenizers.Tokenizer, lines: Sequence[str]) -> list[tokenizers.Encoding]:
    backend.encode_special_tokens = True
    return backend.encode_batch_fast(lines, add_special_tokens=False)


def _expressions(pre_tokenizer: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    """The regular expressions of a byte-level pre-tokenizer; None if it splits in another way."""
    *splits, last = [*steps(pre_tokenizer)] or [{"type": None}]
    found = []
    for step in splits:
        match step:
            case {"type": "Digits", "individual_digits": True}:
                found.append(_DIGIT)
            case {
                "type": "Split",
                "pattern": {"Regex": expression},
                "behavior": "Isolated",
                "invert": False,
            }:
                found.append(expression)
            case _:
                return None
    if last["type"] != "ByteLevel":
        return None
    found += [GPT_2] if last["use_regex"] else []
    return tuple(found)


def _emulated(state: Mapping[str, Any], known: PreTokenizer) -> tokenizers.Tokenizer:
    """The tokenizer as llama.cpp runs it with one of its pre-tokenizers: nothing is normalised."""
    split = [
        {"type": "Split", "pattern": {"Regex": one}, "behavior": "Isolated", "invert": False}
        for one in known.expressions
    ]
    letters = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    changed = {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*split, letters]},
        "post_processor": None,
        "model": {**state["model"], "ignore_merges": known.ignore_merges},
    }
    return tokenizers.Tokenizer.from_str(json.dumps({**state, **changed}))
