"""The tokenizer that every stage uses: text to ids and back, exactly as in ``tokenizer.json``."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import tokenizers
from jaxtyping import UInt

from clp_jax.errors import UserError
from clp_jax.tokenizer.fast import FastEncoder, fast_encoder
from clp_jax.tokenizer.letters import as_letters
from clp_jax.tokenizer.long import LONG, encode_long

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("eos", "bos", "pad", "unk", "cls", "sep", "mask")
"""Roles that a tokenizer itself names. A token with several takes the first."""

_MUCH = 1 << 18
"""Characters from which tiktoken pays off: preparing it costs as much as encoding two million."""

AnyTokenizer = Union["Tokenizer", "PreTrainedTokenizerBase"]
"""Ours, or a fast tokenizer of transformers, which `Tokenizer.of` converts."""


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer as every stage uses it.

    Normaliser, pre-tokenizer, model, added tokens and decoder are those of the file. Special tokens
    do not come from a post-processor but follow these rules:

    * A document is ``opening``, its text, eos.
    * A context is ``opening`` and its text; a continuation is its text alone. Nothing follows them.

    Attributes:
        name: Its origin, for messages.
        description: The JSON description for the `tokenizers` library, without truncation and
            padding. Processes that only encode thus do not need transformers.
        roles: The id of each of `ROLES`, or None.
        opening: Ids that the tokenizer puts before a text by default, such as bos in Llama and
            Gemma. Empty if there are none, or if it also adds ids after the text, as encoders do.
        max_length: Longest sequence in its configuration, or None.
        chat_template: Its Jinja template of conversations, or None.
    """

    name: str
    description: str
    roles: Mapping[str, int | None]
    opening: tuple[int, ...] = ()
    max_length: int | None = None
    chat_template: str | None = None

    @classmethod
    def of(cls, tokenizer: AnyTokenizer) -> "Tokenizer":
        """The given tokenizer, or one converted from a fast tokenizer of transformers in memory."""
        if isinstance(tokenizer, Tokenizer):
            return tokenizer
        roles = {role: getattr(tokenizer, f"{role}_token") for role in ROLES}
        limit = tokenizer.model_max_length
        backend = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        converted = cls.from_backend(
            str(tokenizer.name_or_path), backend, roles, limit if limit < 10**9 else None
        )
        template = tokenizer.chat_template
        return replace(converted, chat_template=template if isinstance(template, str) else None)

    @classmethod
    def from_backend(
        cls,
        name: str,
        backend: tokenizers.Tokenizer,
        roles: Mapping[str, str | None],
        max_length: int | None = None,
    ) -> "Tokenizer":
        """Create a tokenizer from an object of the `tokenizers` library, which is modified.

        Args:
            name: Its origin.
            backend: The library's object.
            roles: The spelling of each role's token; a spelling that is not in the vocabulary
                counts as None.
            max_length: Longest sequence in its configuration.

        Raises:
            UserError: it puts an id before a text, but no token has that id; or two tokens of its
                model have the same id, of which the library writes only one.
        """
        backend.no_truncation()
        backend.no_padding()
        ids = {
            role: None if spelling is None else backend.token_to_id(spelling)
            for role, spelling in roles.items()
        }
        description = backend.to_str()
        state = json.loads(description)
        if len(state["model"]["vocab"]) < backend.get_vocab_size(with_added_tokens=False):
            raise UserError(
                f"The tokenizer in {name} gives the same id to several tokens: fix the vocabulary "
                "in tokenizer.json."
            )
        opening = _opening(state)
        for id in opening:
            if backend.id_to_token(id) is None:
                raise UserError(
                    f"The tokenizer in {name} puts the id {id} before a text, but no token has it: "
                    "fix the post_processor in tokenizer.json."
                )
        return cls(name, description, ids, opening, max_length)

    @property
    def eos(self) -> int | None:
        """The id of the end-of-text token, or None."""
        return self.roles.get("eos")

    @property
    def bos(self) -> int | None:
        """The id of the beginning-of-text token, or None."""
        return self.roles.get("bos")

    @cached_property
    def unknown(self) -> int | None:
        """The id for text that the vocabulary cannot represent, or None."""
        model = self.state["model"]
        own = model.get("unk_id")
        if own is None and model.get("unk_token") is not None:
            own = self.vocabulary.get(model["unk_token"])
        return own

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Ids by spelling, added and special tokens included."""
        return self.backend.get_vocab(with_added_tokens=True)

    @cached_property
    def rows(self) -> int:
        """The highest id plus one."""
        return max(self.vocabulary.values(), default=-1) + 1

    @property
    def dtype(self) -> str:
        """The smaller of uint16 and uint32 that holds every id."""
        return "uint16" if self.rows <= 1 << 16 else "uint32"

    @property
    def state(self) -> dict[str, Any]:
        """The description as a dictionary."""
        return json.loads(self.description)

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The library's object, one per process."""
        return _backend(self.description)

    def token(self, id: int) -> str | None:
        """The spelling of an id, or None if no token has it."""
        return self.backend.id_to_token(id)

    def separator(self) -> int:
        """The id of the end-of-text token, which ends each document of a corpus.

        Raises:
            UserError: the tokenizer has none.
        """
        if self.eos is None:
            raise UserError(
                f"The tokenizer {self.name} has no end-of-text token to put between documents: "
                "set eos_token in its tokenizer_config.json to a token of its vocabulary."
            )
        return self.eos

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The ids of a text alone; see `encode_batch`."""
        return self.encode_batch([text], special=special)[0].tolist()

    def encode_batch(
        self, texts: Sequence[str], *, special: bool = False
    ) -> list[UInt[np.ndarray, " _"]]:
        """The ids of each text alone, without truncation, on all CPU cores.

        tiktoken encodes large batches if its ids are certain to be the same (see
        `clp_jax.tokenizer.fast`). Memory is bounded: a long text is encoded in overlapping parts
        that are joined where they agree, so the ids are those of the whole text.

        Args:
            texts: The texts.
            special: Whether text that spells a special token gets its id, as prompts may require.
                Otherwise it gets the ids of its letters, unless the vocabulary of a Unigram
                tokenizer contains the string as an ordinary piece.
        """
        much = sum(map(len, texts)) >= _MUCH
        fast = _fast(self.description) if much else None
        found = fast.encode_batch(texts, special=special) if fast else [None] * len(texts)
        backend = self.backend
        backend.encode_special_tokens = not special
        left = [text for text, ids in zip(texts, found, strict=True) if ids is None]
        short = [text for text in left if len(text) <= LONG]
        encodings = iter(backend.encode_batch_fast(short, add_special_tokens=False))
        rest = (
            np.array(next(encodings).ids, self.dtype)
            if len(text) <= LONG
            else encode_long(backend, text).astype(self.dtype)
            for text in left
        )
        return [next(rest) if ids is None else ids.astype(self.dtype) for ids in found]

    def encode_documents(self, documents: Sequence[str]) -> list[UInt[np.ndarray, " _"]]:
        """The ids of documents, each with the opening ids and the end-of-text id.

        Raises:
            UserError: the tokenizer has no end-of-text token.
        """
        opening = np.array(self.opening, self.dtype)
        end = np.array([self.separator()], self.dtype)
        return [np.concatenate([opening, ids, end]) for ids in self.encode_batch(documents)]

    def encode_context(self, text: str) -> list[int]:
        """The opening ids and the ids of a text to continue, which may spell special tokens."""
        ids = self.encode(text, special=True)
        opening = [*self.opening]
        return ids if ids[: len(opening)] == opening else opening + ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of ids, with added tokens as they were added."""
        backend, added = self.backend, self._added
        names = [
            added.get(id, (backend.id_to_token(id), False))
            for id in map(int, ids)
            if not (skip_special and id in added and added[id][1])
        ]
        tokens = [name for name, _ in names if name is not None]
        decoder = backend.decoder
        return " ".join(tokens) if decoder is None else decoder.decode(tokens)

    def decode_after(
        self, context: Sequence[int], ids: Sequence[int], *, skip_special: bool = False
    ) -> str:
        """The text that ``ids`` add to the text of ``context``.

        Both are decoded together and split afterwards, since a decoder drops the space before a
        word, which is part of its token, at the start of a text.
        """
        before = self.decode(context, skip_special=skip_special)
        whole = self.decode([*context, *ids], skip_special=skip_special)
        cut = len(before)
        while not whole.startswith(before[:cut]):
            cut -= 1
        return whole[cut:]

    def unknown_bytes(self, text: str) -> int:
        """The number of UTF-8 bytes of a text that become the unknown token."""
        self.backend.encode_special_tokens = True
        parts = (text[start : start + LONG] for start in range(0, len(text), LONG))
        return sum(
            len(part[start:end].encode())
            for part in parts
            for id, (start, end) in _spans(self.backend, part)
            if id == self.unknown
        )

    def check_rows(self, rows: int, table: str) -> None:
        """Check that a table has a row for every id.

        Args:
            rows: Number of rows of the table.
            table: Its name in errors.

        Raises:
            UserError: it has too few rows.
        """
        if rows < self.rows:
            raise UserError(
                f"{table} has {rows} rows, but its tokenizer has ids up to {self.rows - 1}: "
                "give the model the tokenizer it was trained with."
            )

    @cached_property
    def _added(self) -> dict[int, tuple[str, bool]]:
        """The spelling of each added token for the decoder, and whether the token is special.

        A byte-level decoder would otherwise read the letters of an added token as bytes.
        """
        state = self.state
        letters = "ByteLevel" in {step["type"] for step in steps(state["decoder"])}
        spell = as_letters if letters else bytes.decode
        return {
            token["id"]: (spell(token["content"].encode()), token["special"])
            for token in state["added_tokens"]
        }


def steps(description: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The steps of a decoder, pre-tokenizer or post-processor, with nested sequences flattened."""
    if description is None:
        return
    if description["type"] != "Sequence":
        yield description
    for members in ("decoders", "pretokenizers", "processors"):
        for step in description.get(members, []):
            yield from steps(step)


@lru_cache(maxsize=4)
def _backend(description: str) -> tokenizers.Tokenizer:
    """Built once per process, since it takes a quarter of a second."""
    return tokenizers.Tokenizer.from_str(description)


@lru_cache(maxsize=4)
def _fast(description: str) -> FastEncoder | None:
    return fast_encoder(_backend(description))


def _opening(state: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids that a post-processor puts before a text, if it puts none after it."""
    for step in steps(state["post_processor"]):
        if step["type"] == "TemplateProcessing":
            *before, last = step["single"] or [{}]
            if "Sequence" in last and all("SpecialToken" in part for part in before):
                names = [part["SpecialToken"]["id"] for part in before]
                return tuple(id for name in names for id in step["special_tokens"][name]["ids"])
    return ()


def _spans(backend: tokenizers.Tokenizer, text: str) -> Iterator[tuple[int, tuple[int, int]]]:
    encoding = backend.encode(text, add_special_tokens=False)
    yield from zip(encoding.ids, encoding.offsets, strict=True)
