"""The vocabulary of a GGUF file: the tokens of a tokenizer, and no others."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from clp_jax.convert.gguf.pre_tokenizers import Choice, begins_with_space, choose_pre_tokenizer
from clp_jax.errors import UserError
from clp_jax.tokenizer import Tokenizer
from clp_jax.tokenizer.owner import steps
from clp_jax.vocabulary.alphabets import (
    BYTE_NAME,
    ByteLevelAlphabet,
    SentencePieceAlphabet,
    read_alphabet,
)


@dataclass(frozen=True)
class GgufVocabulary:
    """What llama.cpp needs to encode and decode."""

    model: str
    """``gpt2`` for byte-level BPE, ``llama`` for SentencePiece's."""
    tokens: list[str]
    types: list[int]
    """`gguf.TokenType` of each token."""
    suppressed: list[int]
    """Ids without a token, which must not be generated."""
    adds_space: bool
    """Whether llama.cpp puts a space before a text."""
    pre: Choice | None = None
    """The pre-tokenizer of byte-level BPE."""
    merges: list[str] | None = None
    """The merges of byte-level BPE."""
    scores: list[float] | None = None
    """The scores of SentencePiece's BPE: of two pairs, that of the token with the higher merges."""
    notes: tuple[str, ...] = ()
    """What llama.cpp does not do, in sentences."""


def read_gguf_vocabulary(
    tokenizer: Tokenizer, texts: Iterable[str] | None = None
) -> GgufVocabulary:
    """The vocabulary of a tokenizer for llama.cpp.

    Args:
        tokenizer: Byte-level BPE, or SentencePiece's BPE with byte-fallback tokens.
        texts: Documents on which to find the nearest pre-tokenizer; see `choose_pre_tokenizer`.

    Raises:
        UserError: llama.cpp cannot encode as the tokenizer does.
    """
    state = tokenizer.state
    alphabet = read_alphabet(tokenizer.backend, state, tokenizer.name)
    if state["model"]["type"] == "BPE" and isinstance(alphabet, ByteLevelAlphabet):
        return _byte_level(tokenizer, state, texts)
    sentence_piece = isinstance(alphabet, SentencePieceAlphabet)
    if sentence_piece and state["model"].get("byte_fallback"):
        return _sentence_piece(tokenizer, state)
    raise UserError(
        f"The tokenizer of {tokenizer.name} is {state['model']['type']}, and a GGUF file can be "
        "written for byte-level BPE and for SentencePiece's BPE with byte-fallback tokens: export "
        "the model with --to hf."
    )


def _byte_level(
    tokenizer: Tokenizer, state: Mapping[str, Any], texts: Iterable[str] | None
) -> GgufVocabulary:
    notes = []
    if state["normalizer"] not in (None, {"type": "NFC"}):
        raise _not_normalised(tokenizer)
    if state["normalizer"]:
        notes.append("llama.cpp does not compose characters (NFC), as the tokenizer does.")
    if begins_with_space(state):
        notes.append(
            "Begin a prompt with a space: the tokenizer puts one before a text, and llama.cpp does "
            "not."
        )
    return GgufVocabulary(
        model="gpt2",
        **_tokens(tokenizer, state, set()),
        adds_space=False,
        pre=choose_pre_tokenizer(tokenizer, texts),
        merges=[" ".join(merge) for merge in state["model"]["merges"]],
        notes=tuple(notes),
    )


def _sentence_piece(tokenizer: Tokenizer, state: Mapping[str, Any]) -> GgufVocabulary:
    bytes_ = {name for name in state["model"]["vocab"] if BYTE_NAME.fullmatch(name)}
    vocabulary = _tokens(tokenizer, state, bytes_)
    ranks = _ranks(tokenizer, state, bytes_)
    return GgufVocabulary(
        model="llama",
        **vocabulary,
        adds_space=_adds_space(tokenizer, state),
        scores=[-float(ranks.get(token, 0)) for token in vocabulary["tokens"]],
    )


def _tokens(tokenizer: Tokenizer, state: Mapping[str, Any], bytes_: set[str]) -> dict[str, Any]:
    """The tokens by id, their types, and the ids without one."""
    from gguf import TokenType

    names = {id: name for name, id in tokenizer.vocabulary.items()}
    kinds = dict.fromkeys(names, TokenType.NORMAL)
    kinds |= {tokenizer.vocabulary[name]: TokenType.BYTE for name in bytes_}
    kinds |= {
        token["id"]: TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
        for token in state["added_tokens"]
    }
    if bytes_ and tokenizer.unknown is not None:
        kinds[tokenizer.unknown] = TokenType.UNKNOWN
    missing = [id for id in range(tokenizer.rows) if id not in names]
    names |= {id: f"[UNUSED{id}]" for id in missing}
    kinds |= dict.fromkeys(missing, TokenType.UNUSED)
    ids = range(tokenizer.rows)
    return {
        "tokens": [names[id] for id in ids],
        "types": [int(kinds[id]) for id in ids],
        "suppressed": missing,
    }


def _ranks(tokenizer: Tokenizer, state: Mapping[str, Any], bytes_: set[str]) -> dict[str, int]:
    """The rank of each token that merges make.

    llama.cpp has no list of merges: any two neighbours that spell a token merge, the token with
    the highest score first.

    Raises:
        UserError: that gives other ids than the tokenizer's merges.
    """
    merges = [tuple(merge) for merge in state["model"]["merges"]]
    order = [made for made, _ in groupby(left + right for left, right in merges)]
    ranks = {made: rank for rank, made in enumerate(order)}
    special = {token["content"] for token in state["added_tokens"]}
    pieces = state["model"]["vocab"].keys() - special - bytes_
    known = {*merges}
    alike = len(ranks) == len(order) and all(
        (name[:cut], name[cut:]) in known
        for name in pieces
        for cut in range(1, len(name))
        if name[:cut] in pieces and name[cut:] in pieces
    )
    if not alike:
        raise UserError(
            f"The merges of the tokenizer of {tokenizer.name} are not those of a SentencePiece "
            "model, and llama.cpp would merge differently: give the model byte-level BPE."
        )
    return ranks


def _adds_space(tokenizer: Tokenizer, state: Mapping[str, Any]) -> bool:
    """Whether a SentencePiece tokenizer puts a space before a text.

    Raises:
        UserError: it changes or splits text in a way that llama.cpp does not.
    """
    normalizers = state["normalizer"] or {}
    adds, marked = False, False
    for step in normalizers.get("normalizers", [normalizers] if normalizers else []):
        match step:
            case {"type": "Prepend", "prepend": "\u2581"}:
                adds = True
            case {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}:
                marked = True
            case _:
                raise _not_normalised(tokenizer)
    for step in steps(state["pre_tokenizer"]):
        match step:
            case {"type": "Metaspace", "replacement": "\u2581", "split": False}:
                adds, marked = step["prepend_scheme"] != "never", True
            case {"type": "Split", "pattern": {"String": " "}} if marked:
                pass  # There are no spaces any more.
            case _:
                raise UserError(
                    f"The tokenizer of {tokenizer.name} splits text before its merges "
                    f"({step['type']}), and llama.cpp does not: give the model byte-level BPE."
                )
    if not marked:
        raise UserError(
            f"The tokenizer of {tokenizer.name} has no mark for spaces, and llama.cpp writes "
            "one: give the model byte-level BPE."
        )
    return adds


def _not_normalised(tokenizer: Tokenizer) -> UserError:
    kind = tokenizer.state["normalizer"]["type"]
    return UserError(
        f"The tokenizer of {tokenizer.name} normalises text ({kind}), and llama.cpp does not: give "
        "the model a tokenizer without a normaliser."
    )
