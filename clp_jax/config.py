"""Configurations: sections <-> YAML <-> ``--section.key value``; and that of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from clp_jax.errors import UserError
from clp_jax.faults import fault
from clp_jax.limits import (
    BatchSize,
    Factor,
    LearningRate,
    LocalName,
    MeshSize,
    Name,
    Natural,
    PartialShare,
    Positive,
    PositiveFactor,
    PositiveShare,
    Seed,
    SequenceLength,
    Share,
)
from clp_jax.settings import parse_flags, read_settings

C = TypeVar("C", bound="Configuration")

Remat = Literal["none", "dots", "attention_block", "attention", "full"]
ParameterGroup = Literal["embeddings", "positions", "layers", "final_norm"]


class Section(BaseModel):
    """Keys with their types; others are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Configuration(Section):
    """Sections that are a file."""

    @classmethod
    def from_dict(cls: type[C], values: Any, *, origin: str = "configuration") -> C:
        """Check ``values``, sections with keys, and fill in the defaults.

        Raises:
            UserError: they are no sections, or keys are unknown or missing or have values of the
                wrong kind; all are told.
        """
        return cls._checked(values, origin, ())

    @classmethod
    def from_yaml(cls: type[C], file: str | Path | None, overrides: Sequence[str] = ()) -> C:
        """Read a YAML file, if one is given, then apply ``--section.key value`` pairs.

        Raises:
            UserError: the file is missing or not YAML, or a key or value is not accepted; a value
                that came from a flag is told with the flag's name.
        """
        values = {} if file is None else read_settings(file)
        flags = parse_flags(overrides)
        for (section, key), value in flags.items():
            if not isinstance(values.setdefault(section, {}), dict):
                raise UserError(f"--{section}.{key}: {section} has no keys in {file}.")
            values[section][key] = value
        return cls._checked(values, str(file or "command line"), [*flags])

    @classmethod
    def _checked(cls: type[C], values: Any, origin: str, flags: Sequence[tuple[str, str]]) -> C:
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            faults: dict[str, list[str]] = {}
            for one in error.errors():
                place = one["loc"][:2]
                given = [f"--{section}.{key}" for section, key in flags if (section, key) == place]
                others = [f"--{section}.{key}" for section, key in flags if (section,) == place]
                whose = given[0] if given else " ".join([origin, *others])
                faults.setdefault(whose, []).append(fault(one))
            told = "; ".join(f"{whose}: {'; '.join(them)}" for whose, them in faults.items())
            raise UserError(f"{told}.") from None

    @classmethod
    def describe(cls) -> str:
        """One line a key, with its default and its meaning: the help text of the flags."""
        lines = []
        for section, field in cls.model_fields.items():
            kind = field.annotation
            if not (isinstance(kind, type) and issubclass(kind, Section)):
                continue
            lines.append(f"{section}: {kind.__doc__}")
            for key, knob in kind.model_fields.items():
                default = "required" if knob.is_required() else f"default {_as_flag(knob.default)}"
                lines.append(f"  --{section}.{key} ({default})\n      {knob.description}")
        return "\n".join(lines)

    def to_yaml(self) -> str:
        """The whole configuration, defaults included, as YAML."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)


def _as_flag(value: Any) -> str:
    """A default as a flag would have it."""
    plain = [*value] if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("...\n").strip()


class ModelSection(Section):
    """Which model is trained."""

    path: Name
    """Hugging Face folder or hub id: the configuration, the tokenizer and the weights."""
    revision: Name | None = None
    """Branch, tag or commit of a hub id."""
    init: Literal["pretrained", "random"] = "pretrained"
    """`pretrained` keeps the weights; `random` draws new ones: training from scratch."""
    dropout: PartialShare | None = None
    """Replaces every dropout rate of the model's configuration; empty keeps them. GPT-2's own, 0.1
    of the attention weights, makes a training hold all attention scores; 0 does not."""


class MixedCorpusSection(Section):
    """One of the corpora that are trained on."""

    path: LocalName
    """Folder written by `clp-jax prepare`."""
    weight: PositiveFactor | None = None
    """Its share of the sequences, on any scale."""


class DataSection(Section):
    """Which tokens it is trained on; corpora are folders written by `clp-jax prepare`."""

    train: tuple[MixedCorpusSection, ...] = Field(min_length=1)
    """Corpus folder, or a list of `{path, weight}`; without weights, each token counts the same."""
    validation: LocalName | None = None
    """Corpus folder to measure perplexity on."""
    sequence_length: SequenceLength = 1024
    """Tokens of one training sequence."""
    document_mask: bool = False
    """Keep attention within documents, of which a sequence can hold several."""
    restart_positions: bool = False
    """Count learned positions from the start of each document; needs `document_mask`."""

    @field_validator("train", mode="before")
    @classmethod
    def _one_folder(cls, train: Any) -> Any:
        return [{"path": train}] if isinstance(train, str) else train

    @model_validator(mode="after")
    def _fits_together(self) -> "DataSection":
        if len({corpus.weight is None for corpus in self.train}) > 1:
            raise ValueError("give every corpus of train a weight, or none")
        if self.restart_positions and not self.document_mask:
            raise ValueError("restart_positions needs document_mask: true")
        return self

    @property
    def weights(self) -> list[float] | None:
        """The weights of the corpora, or None where they have none."""
        weights = [corpus.weight for corpus in self.train if corpus.weight is not None]
        return weights or None


class MeshSection(Section):
    """How the devices are arranged; one of the sizes may be -1, which takes what is left.

    `mesh: auto` is short for `auto: true`.
    """

    auto: bool = False
    """Pick all sizes by devices, memory, model and batch, and print them and why."""
    data: MeshSize = 1
    """Devices that hold copies of the model and different sequences."""
    fsdp: MeshSize = -1
    """Devices that share the parameters and hold different sequences."""
    tensor: MeshSize = 1
    """Devices that share the heads, the hidden units and the vocabulary of each layer."""
    sequence: MeshSize = 1
    """Devices that share the positions of each sequence."""

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, values: Any) -> Any:
        return {"auto": True} if values == "auto" else values

    @model_validator(mode="after")
    def _all_or_none(self) -> "MeshSection":
        if self.auto and self.sizes != MeshSection().sizes:
            raise ValueError("auto picks all sizes: leave the others out, or auto")
        return self

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of the axes by name."""
        return self.model_dump(exclude={"auto"})


class OptimizerSection(Section):
    """The optimizer and its learning rate."""

    name: Literal["adamw", "adafactor", "lion", "muon"] = "adamw"
    """`adafactor`'s learning rate is relative to the size of each matrix, up to about 1e-2;
    `lion` wants a third to a tenth of AdamW's; `muon` is AdamW but for the layers' matrices."""
    learning_rate: LearningRate = 1e-4
    """The highest learning rate, reached after the warm-up."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate goes on after the warm-up."""
    warmup_steps: Natural = 0
    """Steps over which the learning rate rises from zero."""
    min_lr_ratio: Share = 0.1
    """Learning rate at the last step, as a share of the highest."""
    restarts: Natural = 0
    """How often the learning rate jumps back to the highest and falls again (SGDR)."""
    lr_multipliers: dict[ParameterGroup, Factor] = {}
    """Factors of the learning rate for embeddings, positions, layers or final_norm, such as
    `{layers: 0.1}`; what has 0 is frozen, and costs neither gradients nor optimizer state."""
    embeddings_only_steps: Natural = 0
    """Steps in which only the embeddings are trained; then the rest joins with a warm-up. Costs
    from the start what the whole training costs."""
    layer_decay: PositiveShare = 1.0
    """Factor of the learning rate for each layer between a layer and the nearer end of the model:
    the middle, which is farthest from the new vocabulary, changes the least."""
    weight_decay: Factor = 0.01
    """Decoupled weight decay of matrices; biases and norms are not decayed."""
    beta1: PartialShare = 0.9
    """Decay of the mean of the gradients; `adafactor` keeps none."""
    beta2: PartialShare = 0.98
    """Decay of the mean of their squares; `lion`: of the mean of the gradients that it keeps."""
    epsilon: PositiveShare = 1e-8
    """Added to the denominator of the update by `adamw` and `muon`."""
    clip_norm: PositiveFactor = 1.0
    """Largest global norm of the gradients."""
    mu_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision in which the mean of the gradients is kept."""

    @model_validator(mode="after")
    def _fits_together(self) -> "OptimizerSection":
        if self.restarts and self.schedule == "constant":
            raise ValueError("restarts need a schedule that falls: cosine or linear")
        if self.mu_dtype != "float32" and self.name == "adafactor":
            raise ValueError("adafactor keeps no mean of the gradients: leave mu_dtype out")
        if not any(self.lr_multipliers.get(group, 1) for group in get_args(ParameterGroup)):
            raise ValueError("lr_multipliers freeze everything: nothing is left to train")
        return self


class TrainingSection(Section):
    """A training, wherever its results go."""

    steps: Positive
    """Optimizer steps in all."""
    batch_size: BatchSize = 32
    """Sequences of one optimizer step, over all devices."""
    gradient_accumulation_steps: Positive = 1
    """Parts in which a batch is computed, to save memory."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision of the computation; parameters and optimizer are always float32."""
    remat: Remat = "full"
    """What layers keep for the backward pass, which computes the rest again: `full` their input;
    `attention` also the result of the attention; `attention_block` also the products around it;
    `dots` also the first product of the MLP; `none` everything."""
    loss_chunk: Positive = 256
    """Positions of a sequence whose logits exist at the same time."""
    z_loss: Factor = 0.0
    """Coefficient of the squared log of the softmax's normalizer; PaLM had 1e-4; 0: none."""
    spike_factor: Factor = 10.0
    """Steps whose gradient norm is above so many times its recent level change nothing; 0: none."""
    seed: Seed = 0
    """Seed of the initialisation, the dropout and the order of the data."""
    log_every: Positive = 10
    """Steps between two lines of metrics."""
    validate_every: Positive = 500
    """Steps between two measurements of the validation perplexity."""
    checkpoint_every: Positive = 500
    """Steps between two checkpoints."""
    keep_checkpoints: Positive = 2
    """How many of the newest checkpoints are kept."""
    keep_every: Natural = 0
    """Checkpoints whose step is a multiple of this are kept too; 0: none."""
    keep_best: Natural = 0
    """How many of the checkpoints with the lowest validation loss are kept too."""
    max_skipped: Positive = 10
    """So many steps in a row that change nothing, for want of a finite loss or for a gradient
    spike, are too many."""
    on_skipped: Literal["stop", "rollback"] = "stop"
    """What follows: `stop` ends the run, `rollback` goes back to the newest checkpoint and on with
    the data behind those steps."""
    watchdog_minutes: Factor = 30.0
    """A step, a validation, a checkpoint or a wait for data that takes longer ends the process with
    status 75, so that it can be started again; 0: none."""
    wandb: Name | None = None
    """Project of Weights & Biases that gets the metrics too; empty: none."""

    @model_validator(mode="after")
    def _parts_divide(self) -> "TrainingSection":
        if self.batch_size % self.gradient_accumulation_steps:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of gradient_accumulation_steps "
                f"{self.gradient_accumulation_steps}"
            )
        return self


class TrainSection(TrainingSection):
    """The run itself."""

    out: Name
    """Run folder: checkpoints, metrics, plot and configuration."""


class RunConfig(Configuration):
    """Everything that `clp-jax train` needs to know."""

    model: ModelSection
    data: DataSection
    mesh: MeshSection = MeshSection()
    optimizer: OptimizerSection = OptimizerSection()
    train: TrainSection
