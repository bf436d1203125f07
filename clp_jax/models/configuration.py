"""The border of ``config.json``: what a stranger wrote there, checked key by key."""

from collections.abc import Mapping
from typing import Any

import transformers

from clp_jax.errors import UserError

# Least and most of each number that a model is built from, by `transformers`' name of the key.
LIMITS: Mapping[str, tuple[float, float]] = {
    "vocab_size": (1, 1 << 24),
    "n_positions": (1, 1 << 24),
    "n_embd": (1, 1 << 17),
    "hidden_size": (1, 1 << 17),
    "n_inner": (1, 1 << 20),
    "n_layer": (1, 4096),
    "n_head": (1, 1 << 14),
    "layer_norm_epsilon": (1e-30, 1),
    "initializer_range": (0, 10),
    "embd_pdrop": (0, 0.999),
    "attn_pdrop": (0, 0.999),
    "resid_pdrop": (0, 0.999),
    "hidden_dropout": (0, 0.999),
    "attention_dropout": (0, 0.999),
}
OLD_KEYS = ("n_embed",)
"""Keys that `transformers` reads without declaring them."""


def read_fields(
    kind: type[transformers.PreTrainedConfig], values: Mapping[str, Any]
) -> transformers.PreTrainedConfig:
    """The fields of a configuration that its architecture declares, each within its limits.

    Types are checked by `transformers`, by whose classes other programs read the file too. It does
    not see the other keys: some cost memory (``num_labels``), and none decides what is computed.

    Args:
        kind: Class of `transformers` whose fields, their defaults and other names hold.
        values: Contents of ``config.json``.

    Raises:
        UserError: a value has the wrong type or is beyond its limits.
    """
    known = {*kind.__annotations__, *kind.attribute_map, *OLD_KEYS}
    try:
        fields = kind.from_dict({key: value for key, value in values.items() if key in known})
    except Exception as error:  # `transformers` raises many kinds, of several packages.
        reason = str(error).rpartition("Error: ")[2]
        raise UserError(f"{' '.join(reason.split())[:300]}.") from None
    for key, (least, most) in LIMITS.items():
        value = getattr(fields, key, None)
        if value is not None and not least <= value <= most:
            raise UserError(f"{key} is {value}, but must be from {least} to {most}.")
    return fields
