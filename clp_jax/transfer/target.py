"""The configuration of a transferred model: the source's, with the target tokenizer's ids."""

from collections.abc import Mapping
from typing import Any

from clp_jax.checkpoint.hub import UNPADDED
from clp_jax.tokenizer import Tokenizer

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


def with_target_tokens(values: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """A model or generation configuration whose token ids are those of ``tokenizer``.

    A role that the tokenizer lacks is written as null, since a missing key would mean the
    architecture's default id. Every other setting that names tokens of the source is dropped.
    """
    kept = {
        key: value
        for key, value in values.items()
        if not key.endswith("_token_id") and key not in SOURCE_TOKENS
    }
    return kept | {f"{role}_token_id": tokenizer.roles[role] for role in ROLES}


def target_config(
    source: Mapping[str, Any],
    tokenizer: Tokenizer,
    rows: int,
    dtype: str | None,
) -> dict[str, Any]:
    """The new model's ``config.json``.

    Args:
        source: the source's.
        tokenizer: the new model's.
        rows: of its table. Those behind the highest id are for no token; the configuration then
            says how many are real (`clp_jax.checkpoint.hub.UNPADDED`), and an export drops them.
        dtype: type of the weights, where one was chosen.
    """
    config = with_target_tokens(source, tokenizer) | {"vocab_size": rows}
    config.pop(UNPADDED, None)
    if tokenizer.rows < rows:
        config[UNPADDED] = tokenizer.rows
    config.pop("_name_or_path", None)
    if dtype is not None:
        config.pop("torch_dtype", None)
        config["dtype"] = dtype
    return config
