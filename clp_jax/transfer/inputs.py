"""One of the two checkpoints a transfer starts from, opened and checked."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from clp_jax.checkpoint.hub import load_tokenizer, read_config, resolve
from clp_jax.checkpoint.tensors import LazyTensor, open_tensors
from clp_jax.errors import UserError

# How the usual architectures call the two tables, after any prefix.
EMBEDDINGS = ("wte.weight", "word_embeddings.weight", "embed_tokens.weight", "embed_in.weight")
HEADS = ("lm_head.weight", "embed_out.weight")


@dataclass(frozen=True)
class Checkpoint:
    """A model whose tensors are read when they are asked for.

    Attributes:
        name: the folder or hub id, as the user wrote it.
        folder: where its files are.
        config: contents of its ``config.json``.
        tokenizer: its tokenizer.
        tensors: its tensors by name.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    tokenizer: PreTrainedTokenizerBase
    tensors: dict[str, LazyTensor]

    @classmethod
    def open(cls, name: str | Path) -> "Checkpoint":
        """Open a Hugging Face folder or hub id.

        Raises:
            UserError: it is missing, damaged, or has no tokenizer.
        """
        folder = resolve(name)
        return cls(
            name=str(name),
            folder=folder,
            config=read_config(folder),
            tokenizer=load_tokenizer(folder),
            tensors=open_tensors(folder),
        )

    def tables(self, *, tied: bool) -> list[str]:
        """Names of the tables with a row an id: the input embedding and, unless tied, the head.

        Raises:
            UserError: there is not exactly one input embedding, or a table has fewer rows than
                the tokenizer has ids.
        """
        names = self._called(EMBEDDINGS)
        if len(names) != 1:
            found = "none" if not names else ", ".join(names)
            raise UserError(
                f"{self.name}: one token embedding was expected ({' or '.join(EMBEDDINGS)}), "
                f"but there is {found}."
            )
        names += [] if tied else self._called(HEADS)[:1]
        ids = max(self.tokenizer.get_vocab().values(), default=-1) + 1
        for name in names:
            rows = self.tensors[name].shape[0]
            if rows < ids:
                raise UserError(
                    f"{self.name}: {name} has {rows} rows, but its tokenizer has ids up to "
                    f"{ids - 1}: the tokenizer belongs to another model."
                )
        return names

    def body(self) -> dict[str, LazyTensor]:
        """The tensors that know nothing of the vocabulary."""
        with_vocabulary = self._called(EMBEDDINGS + HEADS)
        return {name: t for name, t in self.tensors.items() if name not in with_vocabulary}

    def tokenizer_hash(self) -> str:
        """SHA-256 of the tokenizer in its serialised form."""
        return hashlib.sha256(self.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()

    def _called(self, endings: tuple[str, ...]) -> list[str]:
        return [name for name in self.tensors if ".".join(name.split(".")[-2:]) in endings]
