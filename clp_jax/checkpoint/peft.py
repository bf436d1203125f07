"""``adapter_config.json``, PEFT's description of an adapter; a run with LoRA has one, too."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clp_jax.config import LoraSection
from clp_jax.errors import UserError
from clp_jax.files import read_json
from clp_jax.models import HEAD, DecoderConfig, decoder_class, weight_table
from clp_jax.models.lora import adapted_kernels, kernel_sides

ADAPTER = "adapter_config.json"


def adapter_config(config: DecoderConfig, *, base: str, trained: Collection[str]) -> dict[str, Any]:
    """The contents of the file.

    Args:
        config: the configuration of the model, with adapters.
        base: folder or hub id of the model without them.
        trained: the parts of the model that are trained; of ``blocks``, the adapters.
    """
    lora = config.lora
    assert lora is not None
    kernels = adapted_kernels(decoder_class(config).weights(config), lora)
    targets = lora.target_modules
    if targets == "all-linear":
        targets = tuple(sorted({kernel.name.split(".")[-2] for kernel in kernels}))
    saved = {
        weight.name.rpartition(".")[0]
        for weight in weight_table(config)
        if weight.path.split(".")[0] in {*trained} - {"blocks"}
    }
    if config.tied and "token_embedding" in trained:
        saved.add(HEAD.name.rpartition(".")[0])
    inputs, _ = kernel_sides(kernels[0])
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.r,
        "lora_alpha": lora.scale * lora.r,
        "lora_dropout": 0.0,
        "target_modules": list(targets),
        "modules_to_save": sorted(saved) or None,
        "fan_in_fan_out": kernels[0].groups[0] == inputs,
        "bias": "none",
        "inference_mode": True,
    }


def read_lora(folder: Path) -> LoraSection | None:
    """The rank, the scale and the targets of the adapters in a run's folder of model files.

    Raises:
        UserError: the description is damaged.
    """
    file = folder / ADAPTER
    if not file.exists():
        return None
    values = read_json(file)
    try:
        return LoraSection(
            r=values["r"],
            alpha=values["lora_alpha"],
            target_modules=tuple(values["target_modules"]),
        )
    except (KeyError, TypeError, ValidationError):
        raise UserError(
            f"{file} does not describe adapters by r, lora_alpha and target_modules: restore it "
            "from a copy."
        ) from None
