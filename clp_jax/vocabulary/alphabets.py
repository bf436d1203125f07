"""The alphabets in which tokenizers of different kinds write bytes as names of tokens.

The tokenizer's JSON description determines the alphabet: its decoder defines what the names mean.
docs/reference/tokens.md states the rules.
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
    """Converts between the names of a tokenizer's tokens and the bytes they stand for."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes that a name stands for, with a leading space if it starts a word."""

    def read_added(self, name: str) -> bytes:
        """The bytes that the name of an added token stands for, usually its own text."""
        return name.encode()

    @abstractmethod
    def write(self, data: bytes) -> list[str]:
        """The bytes as input for the tokenizer's model: strings that it splits one by one.

        Raises:
            ValueError: the alphabet cannot write them.
        """


class PlainAlphabet(Alphabet):
    """A name is the UTF-8 text it stands for; the start of a word is not marked."""

    def read(self, name: str) -> bytes:
        """See `Alphabet`."""
        return name.encode()

    def write(self, data: bytes) -> list[str]:
        """See `Alphabet`."""
        return [data.decode()]


class ByteLevelAlphabet(Alphabet):
    """One character per byte, as in GPT-2."""

    def read(self, name: str) -> bytes:
        """See `Alphabet`. A name with any other character stands for its own text."""
        try:
            return as_bytes(name)
        except KeyError:
            return name.encode()

    def write(self, data: bytes) -> list[str]:
        """See `Alphabet`."""
        return [as_letters(data)]


@dataclass(frozen=True)
class SentencePieceAlphabet(Alphabet):
    """A mark for the space, and byte-fallback tokens such as ``<0xE4>``.

    Attributes:
        space: the mark, usually U+2581.
        byte_names: whether there are byte-fallback tokens.
    """

    space: str
    byte_names: bool

    def read(self, name: str) -> bytes:
        """See `Alphabet`."""
        if self.byte_names and BYTE_NAME.fullmatch(name):
            return bytes.fromhex(name[3:5])
        return name.replace(self.space, " ").encode()

    def read_added(self, name: str) -> bytes:
        """See `Alphabet`. The decoder interprets the mark in every token."""
        return name.replace(self.space, " ").encode()

    def write(self, data: bytes) -> list[str]:
        """See `Alphabet`. Bytes that are not UTF-8 are written one by one."""
        text = data.decode(errors="surrogateescape")
        parts = filter(None, _UNDECODED.split(text.replace(" ", self.space)))
        return [self._part(part) for part in parts]

    def _part(self, part: str) -> str:
        if not _UNDECODED.fullmatch(part):
            return part
        if not self.byte_names:
            raise ValueError("no byte-fallback tokens")
        return f"<0x{ord(part) - 0xDC00:02X}>"


@dataclass(frozen=True)
class WordPieceAlphabet(Alphabet):
    """A prefix marks the continuation of a word; all other names start one.

    The tokenizer separates some characters, such as a full stop, from a preceding letter. A name
    that begins with one says nothing about a space and does not count as the start of a word.

    Attributes:
        prefix: usually ``##``.
        tokenizer: decides which characters it separates.
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
        """Whether the tokenizer splits between a letter and this character."""
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
        description: its JSON description.
        name: its name in errors.

    Raises:
        UserError: it is BPE with a prefix or suffix for parts of words, which is not supported.
    """
    model = description["model"]
    prefix = model.get("continuing_subword_prefix")
    if model["type"] == "BPE" and (prefix or model.get("end_of_word_suffix")):
        raise UserError(
            f"{name}: BPE with a continuing_subword_prefix or an end_of_word_suffix is not "
            "supported: use byte-level BPE, SentencePiece or WordPiece."
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
