"""What a training step needs on TPUs, before renting any: the compiler runs without one."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import topologies
from jaxtyping import Bool

from clp_jax.accelerators import slice_topology
from clp_jax.arguments import checked
from clp_jax.checkpoint.hub import model_files
from clp_jax.checkpoint.names import model_of
from clp_jax.collectives import collective_bytes
from clp_jax.config import LoraSection, ModelSection, RunConfig
from clp_jax.errors import UserError
from clp_jax.evaluate.tables import markdown_table
from clp_jax.limits import Name, VocabularySize
from clp_jax.mesh import batch_divisor, make_mesh, peak_flops
from clp_jax.models import DecoderConfig, abstract_model, abstract_parameters
from clp_jax.train.auto_mesh import run_mesh
from clp_jax.train.flops import step_flops_per_token
from clp_jax.train.inputs import check_sizes, read_decoder
from clp_jax.train.optimizer import make_optimizer
from clp_jax.train.step import make_train_step
from clp_jax.train.teacher import open_teacher

GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """A compiled training step in numbers; memory and bytes are per chip."""

    accelerator: str
    """Cloud TPU accelerator type."""
    chips: int
    """Chips in the slice."""
    batch_size: int
    """Sequences per optimizer step."""
    sequence_length: int
    """Tokens per sequence."""
    state_bytes: int
    """Parameters, optimizer and batch."""
    temporary_bytes: int
    """Peak of what exists only within a step, plus the program."""
    collective_bytes: Mapping[str, int]
    """Bytes received from other chips per step, by kind of collective."""
    flops: int
    """Floating-point operations of a step on all chips, see `step_flops_per_token`."""
    peak_flops: float
    """Dense bfloat16 peak of a chip in FLOP/s."""

    @property
    def memory_bytes(self) -> int:
        """Peak memory of the step."""
        return self.state_bytes + self.temporary_bytes

    @property
    def least_seconds(self) -> float:
        """Time of a step at the chips' peak: no step can be faster."""
        return self.flops / (self.chips * self.peak_flops)

    def to_dict(self) -> dict[str, Any]:
        """The figures, ready for JSON."""
        return {
            **vars(self),
            "memory_bytes": self.memory_bytes,
            "least_seconds": self.least_seconds,
        }

    def __str__(self) -> str:
        tokens = self.batch_size * self.sequence_length
        moved = {kind: f"{size / GIB:,.2f} GiB" for kind, size in self.collective_bytes.items()}
        return markdown_table(
            ("figure", "value"),
            [
                ("chips", f"{self.chips} ({self.accelerator})"),
                ("batch", f"{self.batch_size:,} x {self.sequence_length:,} = {tokens:,} tokens"),
                ("parameters and optimizer, per chip", f"{self.state_bytes / GIB:,.2f} GiB"),
                ("within a step, per chip", f"{self.temporary_bytes / GIB:,.2f} GiB"),
                ("total memory, per chip", f"{self.memory_bytes / GIB:,.2f} GiB"),
                *((f"{kind}, received per chip", size) for kind, size in moved.items()),
                ("operations", f"{self.flops / 1e12:,.1f} TFLOP"),
                ("least time at the chips' peak", f"{1000 * self.least_seconds:,.1f} ms"),
            ],
        )


class TooLarge(UserError):
    """A step that needs more memory than a chip has."""


def planned_decoder(
    section: ModelSection,
    source: str | None = None,
    vocab_size: int | None = None,
    lora: LoraSection | None = None,
) -> DecoderConfig:
    """The configuration of the model to train; `plan_run` explains the arguments."""
    if source is None:
        files = model_files(section.path, section.revision)
    else:
        files = model_files(model_of(source))
    decoder = read_decoder(files, section, lora)
    return replace(decoder, vocab_size=vocab_size or decoder.vocab_size)


@checked
def plan_run(
    config: RunConfig,
    accelerator: str,
    *,
    source: Name | None = None,
    vocab_size: VocabularySize | None = None,
) -> Plan:
    """Compile the training step of a run for TPUs that need not be present.

    Only configurations are read, and a teacher's tokenizer: no weights and no corpora.

    Args:
        config: The run's configuration.
        accelerator: Cloud TPU accelerator type, such as ``v5litepod-32``.
        source: The source of the transfer, if the model is not made yet: a hub id, a folder or a
            ``config.json`` file.
        vocab_size: Rows of the new embedding, as many as the helper has; None: as the source.

    Raises:
        UserError: the compiler is not installed, does not know the type, or finds that the step
            does not fit into a chip's memory; or the configuration does not fit the chips.
    """
    chips = _chips(accelerator)
    decoder = planned_decoder(config.model, source, vocab_size, config.lora)
    mesh = run_mesh(config, decoder, devices=chips)
    check_sizes(config, decoder, mesh)
    abstract = abstract_model(decoder, dtype=jnp.dtype(config.train.dtype))
    teacher = open_teacher(config, decoder)
    try:
        step = make_train_step(
            nnx.graphdef(abstract),
            abstract_parameters(abstract, mesh),
            make_optimizer(config.optimizer, config.train.steps),
            mesh=mesh,
            config=config,
            eos_id=0,
            teacher=teacher,
            trained_rows=_some_rows(decoder) if config.optimizer.new_rows_only else None,
        )
    except jax.errors.JaxRuntimeError as error:
        raise _refusal(str(error), config, accelerator) from None
    memory, program = step.memory_analysis(), step.as_text()
    assert memory is not None
    assert program is not None  # This compiler gives both.
    length, batch_size = config.data.sequence_length, config.train.batch_size
    return Plan(
        accelerator=accelerator,
        chips=len(chips),
        batch_size=batch_size,
        sequence_length=length,
        state_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.peak_memory_in_bytes
        - memory.argument_size_in_bytes
        + memory.generated_code_size_in_bytes,
        collective_bytes=collective_bytes(program),
        flops=step_flops_per_token(abstract, config, teacher) * batch_size * length,
        peak_flops=peak_flops(chips[0].device_kind) or float("nan"),
    )


@checked
def plan_largest_batch(
    config: RunConfig,
    accelerator: str,
    *,
    source: Name | None = None,
    vocab_size: VocabularySize | None = None,
) -> Plan:
    """The plan of the largest batch that fits, of 1, 2, 4, ... sequences per shard of the batch.

    The batch is one microbatch: `train.batch_size` and `train.gradient_accumulation_steps`
    are ignored.

    Raises:
        UserError: as in `plan_run`; not even the smallest batch fits; or `mesh.auto` is set.
    """
    if config.mesh.auto:
        raise UserError("The largest batch needs explicit mesh sizes: remove mesh.auto.")
    rows = batch_divisor(make_mesh(**config.mesh.sizes, devices=_chips(accelerator)))
    best = None
    while True:
        train = config.train.model_copy(
            update={"batch_size": rows, "gradient_accumulation_steps": 1}
        )
        try:
            best = plan_run(
                config.model_copy(update={"train": train}),
                accelerator,
                source=source,
                vocab_size=vocab_size,
            )
        except TooLarge:
            if best is None:
                raise
            return best
        rows *= 2


def _some_rows(decoder: DecoderConfig) -> Bool[np.ndarray, " vocab"]:
    """Every other row; which rows a transfer will copy changes nothing in the program."""
    return np.arange(decoder.vocab_size) % 2 == 0


def _chips(accelerator: str) -> list[jax.Device]:
    """The chips of a slice, as device descriptions to compile for."""
    topology, count, cores = slice_topology(accelerator)
    # No chip is used, so neither this machine's metadata nor a lock on its TPU is needed.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    options: dict[str, Any] = {"chip_config_name": "megacore" if cores == 2 else "default"}
    if count == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return topologies.get_topology_desc(topology, platform="tpu", **options).devices
    except Exception as error:  # Without libtpu the plugin raises one of several types.
        raise UserError(
            f"The TPU compiler does not start ({' '.join(str(error).split())[:200]}): "
            "install it with `pip install libtpu`."
        ) from None


def _refusal(message: str, config: RunConfig, accelerator: str) -> UserError:
    if "RESOURCE_EXHAUSTED" not in message:
        return UserError(f"The TPU compiler rejects the step: {' '.join(message.split())[:300]}")
    used = re.search(r"Used (\S+) of (\S+) hbm", message)
    figures = f"needs {used[1]}, more than the {used[2]}" if used else "needs more than the memory"
    train = config.train
    return TooLarge(
        f"A step of {train.batch_size} sequences in {train.gradient_accumulation_steps} "
        f"microbatches {figures} of a {accelerator} chip: raise train.gradient_accumulation_steps "
        "or mesh.fsdp, or use more chips."
    )
