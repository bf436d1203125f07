"""Tokens in a form common to all tokenizers: their exact bytes, or the role of a special token."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from tokenizers.models import Model

from clp_jax.tokenizer import AnyTokenizer, Tokenizer
from clp_jax.vocabulary.alphabets import (
    BYTE_NAME,
    Alphabet,
    SentencePieceAlphabet,
    read_alphabet,
)
from clp_jax.vocabulary.roles import roles_of


@dataclass(frozen=True, slots=True)
class Token:
    """The meaning of a token.

    Attributes:
        text: its exact bytes, without the one space of a word start; the name of a special token.
        starts_word: whether it stands for one space followed by ``text``, which does not begin with
            white space.
        roles: the roles of a special token; empty for any other.
    """

    text: bytes
    starts_word: bool = False
    roles: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: bytes) -> "Token":
        """The ordinary token that stands for ``data``.

        One space before a character that is not white space starts a word; a token that consists
        only of white space does not.
        """
        if data[:1] == b" " and data[1:].decode(errors="replace")[:1].strip():
            return cls(data[1:], starts_word=True)
        return cls(data)

    @property
    def bytes(self) -> bytes:
        """All bytes it stands for in running text."""
        return b" " + self.text if self.starts_word else self.text

    @property
    def role(self) -> str | None:
        """The first of its roles."""
        return self.roles[0] if self.roles else None


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a tokenizer.

    Attributes:
        tokens: tokens by id, ascending.
        names: the tokenizer's own spellings by id.
        added: ids of added tokens that are not special.
        byte_ids: ids of SentencePiece's byte-fallback tokens, such as ``<0xE4>``, by name.
        alphabet: how the tokenizer writes bytes.
        model: the part of the tokenizer that splits a string into tokens.
    """

    tokens: Mapping[int, Token]
    names: Mapping[int, str]
    added: frozenset[int]
    byte_ids: Mapping[str, int]
    alphabet: Alphabet
    model: Model

    @property
    def rows(self) -> int:
        """The highest id plus one."""
        return max(self.tokens, default=-1) + 1

    @property
    def unassigned_ids(self) -> Int[np.ndarray, " gaps"]:
        """Ids below the highest that have no token, ascending."""
        return np.setdiff1d(np.arange(self.rows), np.array([*self.tokens], np.int64))

    def pieces(self, token: Token) -> list[int]:
        """The ids into which the tokenizer's model splits a token of any vocabulary.

        The normaliser and the pre-tokenizer are not applied. WordPiece has no tokens for spaces, so
        the start of a word is kept only where its names mark it.

        Returns:
            Ids of ordinary tokens that together stand for the bytes of ``token``; empty if there
            are none.
        """
        try:
            ids = [id for part in self.alphabet.write(token.bytes) for id in self._cut(part)]
        except ValueError:
            return []
        if any(self.tokens[id].roles for id in ids):
            return []
        found = b"".join(self.tokens[id].bytes for id in ids)
        return ids if found in (token.bytes, token.text) else []

    def _cut(self, part: str) -> list[int]:
        if part in self.byte_ids:
            return [self.byte_ids[part]]
        try:
            return [piece.id for piece in self.model.tokenize(part)]
        except Exception as error:  # raised if a piece is unknown and there is no token for that
            raise ValueError(part) from error


def read_vocabulary(tokenizer: AnyTokenizer) -> Vocabulary:
    """The vocabulary of a tokenizer, added and special tokens included.

    Raises:
        UserError: the spelling of the tokenizer's tokens is not supported.
    """
    tokenizer = Tokenizer.of(tokenizer)
    description = tokenizer.state
    alphabet = read_alphabet(tokenizer.backend, description, tokenizer.name)
    added = {token["id"]: token for token in description["added_tokens"]}
    # If an id has several names, an added one wins, then the alphabetically first.
    in_order = sorted(tokenizer.vocabulary.items(), reverse=True)
    names = {id: name for name, id in in_order}
    names |= {id: token["content"] for id, token in added.items()}
    special = {id for id, token in added.items() if token["special"]} | {*tokenizer.roles.values()}

    tokens = {}
    for id, name in sorted(names.items()):
        if id in special:
            tokens[id] = Token(name.encode(), roles=roles_of(name, tokenizer.roles, id))
        else:
            tokens[id] = Token.of((alphabet.read_added if id in added else alphabet.read)(name))
    byte_ids = {}
    if isinstance(alphabet, SentencePieceAlphabet) and alphabet.byte_names:
        byte_ids = {name: id for id, name in names.items() if BYTE_NAME.fullmatch(name)}
    return Vocabulary(
        tokens=tokens,
        names=names,
        added=frozenset(added.keys() - special),
        byte_ids=byte_ids,
        alphabet=alphabet,
        model=tokenizer.backend.model,
    )
