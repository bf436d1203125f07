"""The configuration of a transferred model: the source's, with the target tokenizer's ids."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

ROLES = ("bos", "eos", "pad", "unk")

# Settings of `generate` that hold ids of the source's tokens.
SOURCE_TOKENS = {
    "bad_words_ids",
    "begin_suppress_tokens",
    "force_words_ids",
    "forced_decoder_ids",
    "sequence_bias",
    "suppress_tokens",
}


def with_target_tokens(
    values: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """A model or generation configuration whose token ids are those of ``tokenizer``.

    A role that the tokenizer lacks is written as null, since a missing key would mean the
    architecture's default id. Every other setting that names tokens of the source is dropped.
    """
    kept = {
        key: value
        for key, value in values.items()
        if not key.endswith("_token_id") and key not in SOURCE_TOKENS
    }
    return kept | {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ROLES}


def target_config(
    source: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, rows: int, dtype: str | None
) -> dict[str, Any]:
    """The new model's ``config.json``: ``rows`` ids, and ``dtype`` where one was chosen."""
    config = with_target_tokens(source, tokenizer) | {"vocab_size": rows}
    config.pop("_name_or_path", None)
    if dtype is not None:
        config.pop("torch_dtype", None)
        config["dtype"] = dtype
    return config
