"""Text to ids and back, exactly as a ``tokenizer.json`` says."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
"""Roles that a tokenizer names itself. A token with several goes by the first."""

_MUCH = 1 << 18
"""Characters that are worth making tiktoken ready, which takes as long as encoding two million."""

AnyTokenizer = Union["Tokenizer", "PreTrainedTokenizerBase"]
"""Ours, or a fast tokenizer of transformers, which `Tokenizer.of` makes ours."""


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer as every stage uses it.

    Normaliser, pre-tokenizer, model, added tokens and decoder are those of the file. Special tokens
    come from no post-processor but from the following rules:

    * A document is ``opening``, its text, eos.
    * A context is ``opening`` and its text; a continuation is its text alone. Nothing follows them.

    Attributes:
        name: Where it comes from, for messages.
        description: What the `tokenizers` library needs to know, as JSON, without truncation
            and padding: processes that only encode need no transformers.
        roles: The id of each of `ROLES`, or None.
        opening: Ids that it puts before a text by its own habit, as Llama's and Gemma's put bos.
            Empty where it has no such habit, or a frame around the text, as encoders have.
        max_length: Longest sequence that its configuration names, or None.
    """

    name: str
    description: str
    roles: Mapping[str, int | None]
    opening: tuple[int, ...] = ()
    max_length: int | None = None

    @classmethod
    def of(cls, tokenizer: AnyTokenizer) -> "Tokenizer":
        """The same tokenizer, or that of a fast tokenizer of transformers as it is in memory."""
        if isinstance(tokenizer, Tokenizer):
            return tokenizer
        roles = {role: getattr(tokenizer, f"{role}_token") for role in ROLES}
        limit = tokenizer.model_max_length
        backend = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        return cls.from_backend(
            str(tokenizer.name_or_path), backend, roles, limit if limit < 10**9 else None
        )

    @classmethod
    def from_backend(
        cls,
        name: str,
        backend: tokenizers.Tokenizer,
        roles: Mapping[str, str | None],
        max_length: int | None = None,
    ) -> "Tokenizer":
        """The tokenizer of a library's object, which is changed.

        Args:
            name: Where it comes from.
            backend: The library's object.
            roles: The spelling of each role's token; one that is not in the vocabulary counts as
                none.
            max_length: Longest sequence that its configuration names.

        Raises:
            UserError: it puts an id before a text that no token has.
        """
        backend.no_truncation()
        backend.no_padding()
        ids = {
            role: None if spelling is None else backend.token_to_id(spelling)
            for role, spelling in roles.items()
        }
        description = backend.to_str()
        opening = _opening(json.loads(description))
        for id in opening:
            if backend.id_to_token(id) is None:
                raise UserError(
                    f"The tokenizer in {name} puts the id {id} before a text, but no token has it: "
                    "mend the post_processor of tokenizer.json."
                )
        return cls(name, description, ids, opening, max_length)

    @property
    def eos(self) -> int | None:
        """The id of the end of a text."""
        return self.roles.get("eos")

    @property
    def bos(self) -> int | None:
        """The id of the beginning of a text."""
        return self.roles.get("bos")

    @cached_property
    def unknown(self) -> int | None:
        """The id that stands for text that the vocabulary cannot write."""
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
        """The library's object, one a process."""
        return _backend(self.description)

    def token(self, id: int) -> str | None:
        """The spelling of an id, or None if no token has it."""
        return self.backend.id_to_token(id)

    def separator(self) -> int:
        """The end-of-text token, which stands behind each document of a corpus.

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
        """The ids of a text alone, as `encode_batch` finds them."""
        return self.encode_batch([text], special=special)[0].tolist()

    def encode_batch(
        self, texts: Sequence[str], *, special: bool = False
    ) -> list[UInt[np.ndarray, " _"]]:
        """The ids of each text alone, whole, on all CPU cores.

        Much text is left to tiktoken where its ids are certain to be the same (see
        `clp_jax.tokenizer.fast`). Memory is bounded: a long text is encoded in parts that overlap
        and are joined where they agree, so that the ids are those of the text as one.

        Args:
            texts: The texts.
            special: Whether a text that spells a special token gets its id, as prompts may want;
                otherwise it gets the ids of its letters (unless the vocabulary of a Unigram
                tokenizer holds the string as an ordinary piece).
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
        """The ids of documents, each with what opens and ends it.

        Raises:
            UserError: the tokenizer has no end-of-text token.
        """
        opening = np.array(self.opening, self.dtype)
        end = np.array([self.separator()], self.dtype)
        return [np.concatenate([opening, ids, end]) for ids in self.encode_batch(documents)]

    def encode_context(self, text: str) -> list[int]:
        """The ids of a text that something follows, after what opens it; it may spell specials."""
        ids = self.encode(text, special=True)
        opening = [*self.opening]
        return ids if ids[: len(opening)] == opening else opening + ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of ids. Added tokens are spelled as they were added."""
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
        """The text that ``ids`` add to that of ``context``.

        Both are decoded together and cut afterwards: the space before a word is a part of its token
        that a decoder drops at the start of a text.
        """
        before = self.decode(context, skip_special=skip_special)
        whole = self.decode([*context, *ids], skip_special=skip_special)
        cut = len(before)
        while not whole.startswith(before[:cut]):
            cut -= 1
        return whole[cut:]

    def unknown_bytes(self, text: str) -> int:
        """How many UTF-8 bytes of a text stand behind nothing but the unknown token."""
        self.backend.encode_special_tokens = True
        parts = (text[start : start + LONG] for start in range(0, len(text), LONG))
        return sum(
            len(part[start:end].encode())
            for part in parts
            for id, (start, end) in _spans(self.backend, part)
            if id == self.unknown
        )

    def check_rows(self, rows: int, table: str) -> None:
        """Make sure that a table has a row for every id.

        Args:
            rows: Rows of the table.
            table: What errors call it.

        Raises:
            UserError: it has not.
        """
        if rows < self.rows:
            raise UserError(
                f"{table} has {rows} rows, but its tokenizer has ids up to {self.rows - 1}: "
                "give the model the tokenizer it was trained with."
            )

    @cached_property
    def _added(self) -> dict[int, tuple[str, bool]]:
        """What the decoder is to see of added tokens, and whether each is special.

        A decoder of byte-level letters would read the letters of an added word as bytes.
        """
        state = self.state
        letters = "ByteLevel" in {step["type"] for step in steps(state["decoder"])}
        spell = as_letters if letters else bytes.decode
        return {
            token["id"]: (spell(token["content"].encode()), token["special"])
            for token in state["added_tokens"]
        }


def steps(description: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """A decoder, pre-tokenizer or post-processor, or the members of a sequence, however deep."""
    if description is None:
        return
    if description["type"] != "Sequence":
        yield description
    for members in ("decoders", "pretokenizers", "processors"):
        for step in description.get(members, []):
            yield from steps(step)


@lru_cache(maxsize=4)
def _backend(description: str) -> tokenizers.Tokenizer:
    """Made once a process: it takes a quarter of a second."""
    return tokenizers.Tokenizer.from_str(description)


@lru_cache(maxsize=4)
def _fast(description: str) -> FastEncoder | None:
    return fast_encoder(_backend(description))


def _opening(state: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids that a post-processor puts before a text, if it puts none behind it."""
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
