"""A tokenizer for two languages: the source's, followed by the target's new tokens."""

from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from tokenizers.pre_tokenizers import ByteLevel

from clp_jax.checkpoint.hub import load_tokenizer, model_files, without_programs
from clp_jax.errors import UserError
from clp_jax.files import new_folder, read_json, write_json
from clp_jax.tokenizer import Tokenizer

Merge = tuple[str, str]


class Extension(NamedTuple):
    """The tokens that an extended tokenizer adds to its source's.

    Attributes:
        new_ids: their ids in the extended tokenizer, which follow the source's highest, ascending.
        target_ids: ids of the same tokens in the target tokenizer, ascending.
    """

    new_ids: Int[np.ndarray, " new"]
    target_ids: Int[np.ndarray, " new"]


def extend_tokenizer(source: str | Path, target: str | Path, out: str | Path) -> Extension:
    """Write the source tokenizer, extended by all ordinary tokens of the target that it lacks.

    The result keeps the source's ids, special tokens and pre-tokenizer. Special and added tokens of
    the target are left out.

    New tokens apply in two ways. A whole word that is a token becomes that token
    (``ignore_merges``). Within longer words, a new token is the merge of two pieces, if the merges
    so far split it into exactly two; tokens are tried in the order of the target's ids. These
    merges rank after the source's, so text of the source language is split nearly as before. The
    target's own merges are not used: they expect pieces that the source's earlier merges consume.
    docs/lab.md has the numbers.

    Args:
        source: folder or hub id of a byte-level BPE tokenizer, such as GPT-2's or BLOOM's.
        target: folder or hub id of another one.
        out: the folder to write: ``tokenizer.json`` and ``tokenizer_config.json``.

    Raises:
        UserError: a tokenizer is missing or is not byte-level BPE, or ``out`` exists.
    """
    source_tokenizer = load_tokenizer(source)
    state, target_state = (
        _byte_level_state(source_tokenizer, source),
        _byte_level_state(load_tokenizer(target), target),
    )
    vocabulary = state["model"]["vocab"] | {
        token["content"]: token["id"] for token in state["added_tokens"]
    }
    target_vocabulary = target_state["model"]["vocab"]
    known = vocabulary.keys() | {token["content"] for token in target_state["added_tokens"]}
    alphabet = set(ByteLevel.alphabet())
    new = sorted(
        (token for token in target_vocabulary if token not in known and alphabet.issuperset(token)),
        key=target_vocabulary.__getitem__,
    )
    new_ids = max(vocabulary.values()) + 1 + np.arange(len(new))

    state["model"] |= {
        "vocab": vocabulary | dict(zip(new, new_ids.tolist(), strict=True)),
        "merges": _with_merges_for(new, [tuple(merge) for merge in state["model"]["merges"]]),
        "ignore_merges": True,
    }
    with new_folder(out) as folder:
        write_json(folder / "tokenizer.json", state)
        write_json(folder / "tokenizer_config.json", tokenizer_settings(source, source_tokenizer))
    return Extension(new_ids, np.array([target_vocabulary[token] for token in new], dtype=np.int64))


def _byte_level_state(tokenizer: Tokenizer, name: str | Path) -> dict[str, Any]:
    """The JSON description of a tokenizer, if it is byte-level BPE."""
    state = tokenizer.state
    model, decoder = state["model"], state["decoder"] or {}
    decoders = [decoder, *decoder.get("decoders", [])]
    if not (
        model["type"] == "BPE"
        and not model["continuing_subword_prefix"]
        and not model["end_of_word_suffix"]
        and any(step.get("type") == "ByteLevel" for step in decoders)
        and model["vocab"].keys() >= set(ByteLevel.alphabet())
    ):
        raise UserError(
            f"{name} has no byte-level BPE tokenizer such as GPT-2's or BLOOM's: "
            "to extend a vocabulary, both models need one."
        )
    return state


def _with_merges_for(tokens: list[str], merges: list[Merge]) -> list[Merge]:
    """Append a merge for each token that the earlier merges split into exactly two pieces."""
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    for token in tokens:
        pieces = _cut(token, ranks)
        if len(pieces) == 2:
            ranks[pieces[0], pieces[1]] = len(ranks)
    return list(ranks)


def _cut(word: str, ranks: dict[Merge, int]) -> list[str]:
    """Byte-pair encoding: repeatedly join the neighbours with the lowest rank, leftmost first."""
    pieces = list(word)
    while len(pieces) > 1:
        pairs = list(pairwise(pieces))
        best = min(range(len(pairs)), key=lambda i: ranks.get(pairs[i], len(ranks)))
        if pairs[best] not in ranks:
            break
        pieces[best : best + 2] = ["".join(pairs[best])]
    return pieces


def tokenizer_settings(name: str | Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """The source's settings, with a class that uses ``tokenizer.json`` unchanged.

    GPT2Tokenizer and similar classes rebuild the tokenizer from vocabulary and merges, without
    ``ignore_merges``, and supply the special tokens that the file does not name. So the result
    names both the class and the special tokens.
    """
    file = model_files(name) / "tokenizer_config.json"
    settings = without_programs(read_json(file)) if file.exists() else {}
    named = {
        f"{role}_token": tokenizer.token(id)
        for role, id in tokenizer.roles.items()
        if id is not None
    }
    return settings | named | {"tokenizer_class": "PreTrainedTokenizerFast"}
