"""``config.json`` from an untrusted source, checked key by key."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import transformers

from clp_jax.errors import UserError

# Minimum and maximum of each number that defines a model, by its key in `transformers`; where both
# are integers, so is the number.
LIMITS: Mapping[str, tuple[float, float]] = {
    "vocab_size": (1, 1 << 24),
    "n_positions": (1, 1 << 24),
    "n_embd": (1, 1 << 17),
    "hidden_size": (1, 1 << 17),
    "n_inner": (1, 1 << 20),
    "intermediate_size": (1, 1 << 20),
    "n_layer": (1, 4096),
    "num_hidden_layers": (1, 4096),
    "n_head": (1, 1 << 14),
    "num_attention_heads": (1, 1 << 14),
    "num_key_value_heads": (1, 1 << 14),
    "head_dim": (1, 1 << 14),
    "sliding_window": (1, 1 << 30),
    "max_position_embeddings": (1, 1 << 30),
    "layer_norm_epsilon": (1e-30, 1),
    "rms_norm_eps": (1e-30, 1),
    "initializer_range": (0.0, 10.0),
    "embd_pdrop": (0, 0.999),
    "attn_pdrop": (0, 0.999),
    "resid_pdrop": (0, 0.999),
    "hidden_dropout": (0, 0.999),
    "attention_dropout": (0, 0.999),
    "query_pre_attn_scalar": (1e-6, 1e6),
    "attn_logit_softcapping": (1e-6, 1e30),
    "final_logit_softcapping": (1e-6, 1e30),
    "sliding_window_pattern": (1, 4096),
    "no_rope_layer_interval": (1, 4096),
}
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Keys of mixtures of experts in the families that have them."""
UNDECLARED = ("n_embed", "head_dim")
"""Keys that `transformers` reads without declaring them."""
UNDECLARED_OF_ROPE = (
    "rope_theta",
    "rope_scaling",
    "partial_rotary_factor",
    "rope_local_base_freq",
    "sliding_window_pattern",
)
"""The same for architectures with ``rope_parameters``."""


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
    known = {*kind.__annotations__, *kind.attribute_map, *UNDECLARED}
    if "rope_parameters" in known:
        known.update(UNDECLARED_OF_ROPE)
    declared = {key: value for key, value in values.items() if key in known}
    _check_limits(declared)  # Before `transformers` makes lists with an entry for each layer.
    _check_objects(declared)
    try:
        fields = kind.from_dict(deepcopy(declared))  # It completes `rope_parameters` in place.
    except IndexError:
        raise UserError("a list has fewer entries than there are layers.") from None
    except Exception as error:  # `transformers` raises exceptions of several packages.
        reason = str(error).rpartition("Error: ")[2]
        raise UserError(f"{' '.join(reason.split())[:300].removesuffix('.')}.") from None
    _check_limits({key: getattr(fields, key, None) for key in LIMITS})
    return fields


def _check_limits(values: Mapping[str, Any]) -> None:
    for key in LIMITS.keys() & values.keys():
        value, (least, most) = values[key], LIMITS[key]
        kinds = (int,) if isinstance(most, int) and isinstance(least, int) else (int, float)
        if value is not None and not (type(value) in kinds and least <= value <= most):
            kind = "an integer" if kinds == (int,) else "a number"
            raise UserError(f"{key} is {value!r:.40}, but must be {kind} from {least} to {most}.")


def _check_objects(values: Mapping[str, Any]) -> None:
    for key in ("rope_parameters", "rope_scaling"):
        value = values.get(key)
        if not isinstance(value, Mapping | None):
            raise UserError(f"{key} is {value!r:.40}, but must be an object.")


def refuse_kinds(values: Mapping[str, Any]) -> None:
    """Refuse quantised, multimodal and mixture-of-experts models, of any architecture.

    Raises:
        UserError: says what to use instead.
    """
    quantization = values.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
        raise UserError(
            f"the weights are quantised ({method or 'quantization_config'}): use the model's "
            "checkpoint in float32, bfloat16 or float16, or dequantise it with transformers."
        )
    text = values.get("text_config")
    if text is not None:
        kind = text.get("model_type") if isinstance(text, Mapping) else None
        raise UserError(
            f"model_type {values.get('model_type')} is multimodal: save its text model "
            f"({kind or 'text_config'}) with transformers as a checkpoint of its own, and use that."
        )
    for key in EXPERTS:
        experts = values.get(key)
        if isinstance(experts, int) and experts > 1:
            raise UserError(
                f"{key} is {experts}, but mixtures of experts are not supported: use a dense model."
            )
