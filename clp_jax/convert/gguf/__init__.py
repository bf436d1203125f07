"""A model as one GGUF file, which llama.cpp, Ollama and LM Studio run.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from tqdm import tqdm

from clp_jax.checkpoint.card import flat, read_metadata
from clp_jax.checkpoint.hf import model_tokenizer, open_model
from clp_jax.checkpoint.hub import end_ids, model_files, read_config, read_generation
from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.convert.gguf.architectures import (
    add_hyperparameters,
    gguf_tensors,
    read_architecture,
)
from clp_jax.convert.gguf.vocabulary import GgufVocabulary, read_gguf_vocabulary
from clp_jax.errors import UserError
from clp_jax.files import new_file, public_name
from clp_jax.models import weight_table
from clp_jax.tokenizer import Tokenizer

SUPPRESSED = "tokenizer.ggml.suppress_tokens"
"""Key for the ids that must not be generated."""
_FILE_TYPES: Mapping[np.dtype, int] = {
    np.dtype(np.float32): 0,
    np.dtype(np.float16): 1,
    np.dtype(ml_dtypes.bfloat16): 32,
}
"""`gguf.LlamaFileType` by the dtype of the matrices."""
_WIDE = ("position_embd.weight", "rope_freqs.weight")
"""Matrices that llama.cpp reads in float32, as it does all vectors."""


@dataclass(frozen=True)
class GgufReport:
    """What a user of a GGUF file should know."""

    vocabulary: GgufVocabulary
    tokenizer: str
    """Name of the tokenizer."""

    def __str__(self) -> str:
        pre = self.vocabulary.pre
        lines = [f"{len(self.vocabulary.tokens):,} tokens"]
        if pre is not None:
            lines.append(
                f"llama.cpp's pre-tokenizer {pre.name} splits text as the tokenizer does."
                if pre.same
                else f"llama.cpp has no pre-tokenizer that splits text as the tokenizer of "
                f"{self.tokenizer} does; {pre.name} is the nearest."
            )
            if pre.differing is not None:
                lines.append(f"Of {pre.lines:,} lines, {pre.differing:.2%} get other ids there.")
        return "\n".join([*lines, *self.vocabulary.notes])


def write_gguf(
    source: str | Path,
    out: str | Path,
    *,
    dtype: Any = None,
    texts: Iterable[str] | None = None,
) -> GgufReport:
    """Write a model as a GGUF file, one tensor at a time.

    The vocabulary is the tokenizer's: rows for no token are left out.

    Args:
        source: Hugging Face folder, hub id or run folder.
        out: New file.
        dtype: float32, float16 or bfloat16, of the matrices; None keeps the table's. Vectors are
            float32.
        texts: Documents on which the nearest pre-tokenizer is found if there is none that splits
            as the tokenizer does; with any, the share of lines with other ids is reported.

    Raises:
        UserError: the package gguf is not installed; llama.cpp cannot run the model or encode as
            its tokenizer does; or ``out`` exists.
    """
    try:
        import gguf
    except ImportError:
        raise UserError(
            "A GGUF file needs the package gguf: pip install 'clp-jax[gguf]'."
        ) from None
    config, checkpoint = open_model(source)
    files, tokenizer = model_files(source), model_tokenizer(source)
    values = read_config(files)
    architecture = read_architecture(str(source), config, values)
    vocabulary = read_gguf_vocabulary(tokenizer, texts)
    tables = [weight.name for weight in weight_table(config) if weight.axes[0] == "vocab"]
    kind = checkpoint[tables[0]].dtype if dtype is None else np.dtype(dtype)
    if kind not in _FILE_TYPES:
        raise UserError(f"A GGUF file holds float32, float16 or bfloat16, not {kind}: choose one.")
    tensors = gguf_tensors(architecture, checkpoint, config, dict.fromkeys(tables, tokenizer.rows))

    writer = gguf.GGUFWriter(None, architecture.name)
    writer.add_file_type(_FILE_TYPES[kind])
    _add_description(writer, files, Path(public_name(str(source))).name)
    divisors = add_hyperparameters(writer, config, values)
    if divisors is not None:
        tensors["rope_freqs.weight"] = LazyTensor.of(divisors)
    _add_vocabulary(writer, vocabulary, tokenizer, end_ids(read_generation(files)))
    written = {
        name: tensor.astype(
            np.dtype(np.float32) if len(tensor.shape) == 1 or name in _WIDE else kind
        )
        for name, tensor in tensors.items()
    }
    with new_file(out) as scratch:
        _write(writer, scratch, written)
    return GgufReport(vocabulary, tokenizer.name)


def _add_description(writer: Any, files: Path, name: str) -> None:
    """Write the model's name, and what its card says of licence and language."""
    card = read_metadata(files)
    writer.add_name(name)
    if licences := flat([card.get("license")]):
        writer.add_license(", ".join(licences))
    if languages := flat([card.get("language")]):
        writer.add_languages(languages)


def _add_vocabulary(
    writer: Any, vocabulary: GgufVocabulary, tokenizer: Tokenizer, ends: list[int]
) -> None:
    """Write the tokens, how to encode with them, their roles and the chat template.

    Raises:
        UserError: there is no end-of-text token, and llama.cpp would take another for it; or the
            tokenizer begins a text with several ids.
    """
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre("default" if vocabulary.pre is None else vocabulary.pre.name)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.suppressed:
        writer.add_array(SUPPRESSED, vocabulary.suppressed)
    writer.add_add_space_prefix(vocabulary.adds_space)

    eos = tokenizer.separator()
    if len(tokenizer.opening) > 1:
        raise UserError(
            f"The tokenizer of {tokenizer.name} puts {len(tokenizer.opening)} ids before a text, "
            "and llama.cpp puts one at most: change the post_processor in tokenizer.json."
        )
    bos = eos if tokenizer.bos is None else tokenizer.bos
    writer.add_bos_token_id(*tokenizer.opening or (bos,))
    writer.add_eos_token_id(eos)
    others = [end for end in ends if end != eos and 0 <= end < len(vocabulary.tokens)]
    if others:
        writer.add_eot_token_id(others[0])  # llama.cpp has one more id for the end of a turn.
    if tokenizer.unknown is not None:
        writer.add_unk_token_id(tokenizer.unknown)
    if tokenizer.roles["pad"] is not None:
        writer.add_pad_token_id(tokenizer.roles["pad"])
    writer.add_add_bos_token(bool(tokenizer.opening))
    writer.add_add_eos_token(False)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


def _write(writer: Any, file: Path, tensors: Mapping[str, LazyTensor]) -> None:
    """Write the file's header, then the tensors one by one."""
    from gguf import GGMLQuantizationType

    brain = np.dtype(ml_dtypes.bfloat16)
    for name, tensor in tensors.items():
        raw = GGMLQuantizationType.BF16 if tensor.dtype == brain else None
        writer.add_tensor_info(name, tensor.shape, tensor.dtype, tensor.nbytes, raw_dtype=raw)
    try:
        writer.write_header_to_file(file)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        total = sum(tensor.nbytes for tensor in tensors.values())
        with tqdm(
            total=total, unit="B", unit_scale=True, desc="writing GGUF", disable=None, leave=False
        ) as bar:
            for tensor in tensors.values():
                writer.write_tensor_data(np.ascontiguousarray(tensor.read()))
                bar.update(tensor.nbytes)
    finally:
        writer.close()
