"""How the kinds of tokenizers write bytes in the names of their tokens.

The kind is read from the tokenizer's own JSON description: what its decoder undoes is what its
names mean. The rules are written out in docs/reference/tokens.md.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from clp_jax.errors import UserError
from clp_jax.tokenizer.letters import as_bytes, as_letters
from clp_jax.tokenizer.owner import steps

BYTE_NAME = re.compile(r"<0x[0-9A-F]{2}>")
_UNDECODED = re.compile("([\udc80-\udcff])")


class Alphabet(ABC):
    """Reads the names of a tokenizer's own tokens, and writes bytes as such names."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes that a name stands for, a leading space where it starts a word."""

    def read_added(self, name: str) -> bytes:
        """The bytes that the name of an added token stands for: as a rule it is their text."""
        return name.encode()

    @abstractmethod
    def write(self, data: bytes) -> list[str]:
        """The same bytes as the model takes them: strings for it to cut, one after the other.

        Raises:
            ValueError: the alphabet cannot write them.
        """


class PlainAlphabet(Alphabet):
    """A name is the UTF-8 text it stands for; nothing says where a word starts."""

    def read(self, name: str) -> bytes:
        """See `Alphabet`."""
        return name.encode()

    def write(self, data: bytes) -> list[str]:
        """See `Alphabet`."""
        return [data.decode()]


class ByteLevelAlphabet(Alphabet):
    """A character for each byte, as GPT-2 has it."""

    def read(self, name: str) -> bytes:
        """See `Alphabet`. A name with any other character stands for its text."""
        try:
            return as_bytes(name)
        except KeyError:
            return name.encode()

    def write(self, data: bytes) -> list[str]:
        """See `Alphabet`."""
        return [as_letters(data)]


@dataclass(frozen=True)
class SentencePieceAlphabet(Alphabet):
    """A mark for the space, and names like ``<0xE4>`` for single bytes.

    Attributes:
        space: the mark, U+2581 as a rule.
        byte_names: whether there are names of bytes.
    """

    space: str
    byte_names: bool

    def read(self, name: str) -> bytes:
        """See `Alphabet`."""
        if self.byte_names and BYTE_NAME.fullmatch(name):
            return bytes.fromhex(name[3:5])
        return name.replace(self.space, " ").encode()

    def read_added(self, name: str) -> bytes:
        """See `Alphabet`. The decoder reads the mark in any token."""
        return name.replace(self.space, " ").encode()

    def write(self, data: bytes) -> list[str]:
        """See `Alphabet`. Bytes that are no UTF-8 are written one by one."""
        text = data.decode(errors="surrogateescape")
        parts = filter(None, _UNDECODED.split(text.replace(" ", self.space)))
        return [self._part(part) for part in parts]

    def _part(self, part: str) -> str:
        if not _UNDECODED.fullmatch(part):
            return part
        if not self.byte_names:
            raise ValueError("no names for single bytes")
        return f"<0x{ord(part) - 0xDC00:02X}>"


@dataclass(frozen=True)
class WordPieceAlphabet(Alphabet):
    """A prefix for what goes on with a word; all other names start one.

    Names that begin with a character which the tokenizer itself cuts off from a letter before it,
    such as a full stop, say nothing about a space and do not count as the start of a word.

    Attributes:
        prefix: ``##`` as a rule.
        tokenizer: asked about the characters.
    """

    prefix: str
    tokenizer: Tokenizer
    _stands_alone: dict[str, bool] = field(default_factory=dict)

    def read(self, name: str) -> bytes:
        """See `Alphabet`."""
        if name.startswith(self.prefix) and name != self.prefix:
            return name.removeprefix(self.prefix).encode()
        return (name if self.stands_alone(name[:1]) else f" {name}").encode()

    def write(self, data: bytes) -> list[str]:
        """See `Alphabet`."""
        text = data.decode()
        if text.startswith(" "):
            return [text.removeprefix(" ")]
        return [text if self.stands_alone(text[:1]) else self.prefix + text]

    def stands_alone(self, character: str) -> bool:
        """Whether the tokenizer cuts between a letter and this character."""
        if character not in self._stands_alone:
            text = f"a{character}"
            if normalizer := self.tokenizer.normalizer:
                text = normalizer.normalize_str(text)
            pieces = [(text, (0, len(text)))]
            if splitter := self.tokenizer.pre_tokenizer:
                pieces = splitter.pre_tokenize_str(text)
            self._stands_alone[character] = len(pieces) > 1
        return self._stands_alone[character]


def read_alphabet(tokenizer: Tokenizer, description: dict[str, Any], name: str) -> Alphabet:
    """The alphabet of a tokenizer.

    Args:
        tokenizer: the fast tokenizer.
        description: the same in JSON.
        name: what errors call it.

    Raises:
        UserError: its names mark the ends of words, which no rule here covers.
    """
    model = description["model"]
    prefix = model.get("continuing_subword_prefix")
    if model["type"] == "BPE" and (prefix or model.get("end_of_word_suffix")):
        raise UserError(
            f"{name}: a BPE tokenizer whose tokens carry a continuing_subword_prefix or an "
            "end_of_word_suffix is not supported: use byte-level BPE, SentencePiece or WordPiece."
        )
    byte_names = bool(model.get("byte_fallback")) or any(
        step["type"] == "ByteFallback" for step in steps(description["decoder"])
    )
    for step in [*steps(description["decoder"]), *steps(description["pre_tokenizer"])]:
        match step:
            case {"type": "ByteLevel"}:
                return ByteLevelAlphabet()
            case {"type": "Metaspace", "replacement": space}:
                return SentencePieceAlphabet(space, byte_names)
            case {"type": "Replace", "pattern": {"String": space}, "content": " "}:
                return SentencePieceAlphabet(space, byte_names)
            case {"type": "WordPiece", "prefix": mark}:
                return WordPieceAlphabet(mark, tokenizer)
    return WordPieceAlphabet(prefix, tokenizer) if prefix else PlainAlphabet()
