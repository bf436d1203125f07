"""``config.json`` from an untrusted source, checked key by key."""

from collections.abc import Mapping
from typing import Any

import transformers

from clp_jax.errors import UserError

# Minimum and maximum of each number that defines a model, by its key in `transformers`.
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

    `transformers`, whose classes also read the file in other programs, checks the types. It gets
    only the declared keys: some others cost memory (``num_labels``), and none affects the results.

    Args:
        kind: Class of `transformers` that defines the fields, their defaults and aliases.
        values: Contents of ``config.json``.

    Raises:
        UserError: a value has the wrong type or is out of range.
    """
    known = {*kind.__annotations__, *kind.attribute_map, *OLD_KEYS}
    try:
        fields = kind.from_dict({key: value for key, value in values.items() if key in known})
    except Exception as error:  # `transformers` raises exceptions of several packages.
        reason = str(error).rpartition("Error: ")[2]
        raise UserError(f"{' '.join(reason.split())[:300]}.") from None
    for key, (least, most) in LIMITS.items():
        value = getattr(fields, key, None)
        if value is not None and not least <= value <= most:
            raise UserError(f"{key} is {value}, but must be from {least} to {most}.")
    return fields
