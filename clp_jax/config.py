"""Configurations: sections, YAML files and ``--section.key value`` flags; that of a run."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
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
    SetName,
    Share,
)
from clp_jax.settings import by_section, parse_flags, read_settings

C = TypeVar("C", bound="Configuration")

Remat = Literal["none", "dots", "attention_block", "attention", "full"]
ParameterGroup = Literal["embeddings", "positions", "layers", "final_norm"]


class Section(BaseModel):
    """Keys with their types; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @property
    def given(self) -> dict[str, Any]:
        """The keys that differ from their defaults, as JSON has them."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def refuse_ignored(self, why: str, *keys: str) -> None:
        """Refuse keys that decide nothing, because another key has turned off their part.

        Raises:
            ValueError: one of ``keys`` is given; names those that are, and ``why``, a clause.
        """
        given = [key for key in keys if key in self.given]
        if given:
            them = "it" if len(given) == 1 else "them"
            raise ValueError(
                f"{' and '.join(given)} would be ignored, because {why}: leave {them} out, or "
                "change that"
            )


class Configuration(Section):
    """A configuration file, made of sections."""

    @classmethod
    def from_dict(cls: type[C], values: Any, *, origin: str = "configuration") -> C:
        """Check ``values``, sections with keys, and fill in the defaults.

        Raises:
            UserError: the values are not sections, or keys are unknown, missing or of the wrong
                type; the error names all of them.
        """
        return cls._checked(values, origin, ())

    @classmethod
    def from_yaml(cls: type[C], file: str | Path | None, overrides: Sequence[str] = ()) -> C:
        """Read a YAML file, if one is given, then apply ``--section.key value`` pairs.

        Raises:
            UserError: the file is missing or not YAML, or a key or value is not accepted; a value
                from a flag is reported under the flag's name.
        """
        values = {} if file is None else read_settings(file)
        flags = parse_flags(overrides)
        for section, keys in by_section(flags).items():
            if not isinstance(values.setdefault(section, {}), dict):
                raise UserError(f"--{section}.{next(iter(keys))}: {section} has no keys in {file}.")
            values[section] |= keys
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
            reported = "; ".join(f"{whose}: {'; '.join(them)}" for whose, them in faults.items())
            raise UserError(f"{reported}.") from None

    @classmethod
    def describe(cls) -> str:
        """The help text of the flags: each key with its default and its meaning."""
        lines = []
        for section, field in cls.model_fields.items():
            kind = field.annotation
            if not (isinstance(kind, type) and issubclass(kind, Section)):
                continue
            lines.append(textwrap.fill(" ".join(f"{section}: {kind.__doc__}".split()), 98))
            for key, info in kind.model_fields.items():
                default = "required" if info.is_required() else f"default {_as_flag(info.default)}"
                text = " ".join((info.description or "").split())
                lines.append(f"  --{section}.{key} ({default})")
                lines.append(textwrap.indent(textwrap.fill(text, 92), " " * 6))
        return "\n".join(lines)

    def to_yaml(self) -> str:
        """The whole configuration, defaults included, as YAML."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)


def _as_flag(value: Any) -> str:
    """A default as it is written on the command line."""
    plain = [*value] if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("...\n").strip()


class ModelSection(Section):
    """The model to train."""

    path: Name
    """Hugging Face folder or hub id with the configuration, the tokenizer and the weights."""
    revision: Name | None = None
    """Branch, tag or commit of a hub id."""
    init: Literal["pretrained", "random"] = "pretrained"
    """`pretrained` keeps the weights; `random` draws new ones, to train from scratch."""
    dropout: PartialShare | None = None
    """Replaces every dropout rate of the model's configuration; empty keeps them. With GPT-2's
    rate for attention weights, 0.1, training stores all attention scores; with 0 it does not."""


class MixedCorpusSection(Section):
    """One of several training corpora."""

    path: LocalName
    """Folder written by `clp-jax prepare`."""
    weight: PositiveFactor | None = None
    """Its share of the sequences; weights need not add up to 1."""


class DataSection(Section):
    """The tokens to train and validate on; corpora are folders written by `clp-jax prepare`."""

    train: tuple[MixedCorpusSection, ...] = Field(min_length=1)
    """Corpus folder, or a list of `{path, weight}`; without weights, all tokens count equally."""
    validation: dict[SetName, LocalName] = {}
    """Corpus folder on which perplexity is measured, or several by name, such as
    `{german: FOLDER, english: FOLDER}`, of which the first decides what the best checkpoint is."""
    sequence_length: SequenceLength = 1024
    """Tokens per training sequence."""
    document_mask: bool = False
    """Restrict attention to single documents; a sequence can hold several."""
    restart_positions: bool = False
    """Count learned positions from the start of each document; requires `document_mask`."""

    @field_validator("train", mode="before")
    @classmethod
    def _one_folder(cls, train: Any) -> Any:
        return [{"path": train}] if isinstance(train, str) else train

    @field_validator("validation", mode="before")
    @classmethod
    def _one_set(cls, validation: Any) -> Any:
        """One folder is a set without a name."""
        if isinstance(validation, str):
            return {"": validation}
        if not isinstance(validation, dict | None):
            raise ValueError(
                "must be one folder, or folders by name, as in {german: a, english: b}"
            )
        return validation or {}

    @field_serializer("validation")
    def _as_written(self, validation: dict[str, str]) -> dict[str, str] | str | None:
        return validation[""] if [*validation] == [""] else validation or None

    @model_validator(mode="after")
    def _fits_together(self) -> "DataSection":
        if len({corpus.weight is None for corpus in self.train}) > 1:
            raise ValueError("give every corpus of train a weight, or none")
        if not self.document_mask:
            self.refuse_ignored("document_mask is false", "restart_positions")
        return self

    @property
    def weights(self) -> list[float] | None:
        """The weights of the corpora, or None if they have none."""
        weights = [corpus.weight for corpus in self.train if corpus.weight is not None]
        return weights or None


class MeshSection(Section):
    """How the devices are arranged; one size may be -1, which takes the remaining devices.

    `mesh: auto` is short for `auto: true`.
    """

    auto: bool = False
    """Choose all sizes from devices, memory, model and batch; print them with the reason."""
    data: MeshSize = 1
    """Data parallelism: devices that hold copies of the model and different sequences."""
    fsdp: MeshSize = -1
    """Fully sharded data parallelism: devices that split the parameters and hold different
    sequences."""
    tensor: MeshSize = 1
    """Tensor parallelism: devices that split the heads, the hidden units and the vocabulary."""
    sequence: MeshSize = 1
    """Sequence parallelism: devices that split the positions of each sequence."""

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, values: Any) -> Any:
        return {"auto": True} if values == "auto" else values

    @model_validator(mode="after")
    def _all_or_none(self) -> "MeshSection":
        if self.auto:
            self.refuse_ignored("auto picks all sizes", *self.sizes)
        return self

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of the axes by name."""
        return self.model_dump(exclude={"auto"})


class OptimizerSection(Section):
    """The optimizer and its learning rate."""

    name: Literal["adamw", "adafactor", "lion", "muon"] = "adamw"
    """`adafactor`'s learning rate is relative to the size of each matrix, up to about 1e-2;
    `lion` needs a third to a tenth of AdamW's; `muon` uses AdamW outside the layers' matrices."""
    learning_rate: LearningRate = 1e-4
    """Peak learning rate, reached after the warm-up."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate changes after the warm-up."""
    warmup_steps: Natural = 0
    """Steps over which the learning rate rises from zero."""
    min_lr_ratio: Share = 0.1
    """Learning rate at the last step, as a share of the peak."""
    restarts: Natural = 0
    """How often the learning rate returns to the peak and falls again (SGDR)."""
    lr_multipliers: dict[ParameterGroup, Factor] = {}
    """Factors of the learning rate for embeddings, positions, layers or final_norm, such as
    `{layers: 0.1}`; a group with 0 is frozen and needs neither gradients nor optimizer state."""
    embeddings_only_steps: Natural = 0
    """Steps that train only the embeddings; then the rest joins with a warm-up. These steps cost
    as much as training everything."""
    layer_decay: PositiveShare = 1.0
    """Factor of the learning rate for each layer between a layer and the nearer end of the model:
    the middle layers, farthest from the new vocabulary, change the least."""
    weight_decay: Factor = 0.01
    """Decoupled weight decay of matrices; biases and norms are not decayed."""
    beta1: PartialShare = 0.9
    """Decay of the running mean of the gradients; `adafactor` has none."""
    beta2: PartialShare = 0.98
    """Decay of the running mean of their squares; for `lion`, of its stored mean of gradients."""
    epsilon: PositiveShare = 1e-8
    """Added to the denominator of the update by `adamw` and `muon`."""
    clip_norm: PositiveFactor = 1.0
    """Largest global norm of the gradients; larger gradients are scaled down to it."""
    mu_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the stored mean of the gradients."""
    new_rows_only: bool = False
    """Keep the embedding rows that a transfer copied from its source, and train the others."""

    @model_validator(mode="after")
    def _fits_together(self) -> "OptimizerSection":
        if self.schedule == "constant":
            self.refuse_ignored("schedule is constant", "restarts", "min_lr_ratio")
        if self.name == "adafactor":
            self.refuse_ignored("name is adafactor", "beta1", "beta2", "epsilon", "mu_dtype")
        if self.name == "lion":
            self.refuse_ignored("name is lion", "epsilon")
        trained = [group for group in get_args(ParameterGroup) if not self.freezes(group)]
        if not trained:
            raise ValueError("lr_multipliers freeze everything: nothing is left to train")
        if trained == ["embeddings"]:
            self.refuse_ignored("lr_multipliers freeze all else", "embeddings_only_steps")
        if self.freezes("embeddings"):
            why = "lr_multipliers freeze the embeddings"
            self.refuse_ignored(why, "embeddings_only_steps", "new_rows_only")
        if self.freezes("layers"):
            self.refuse_ignored("lr_multipliers freeze the layers", "layer_decay")
        return self

    def freezes(self, group: ParameterGroup, *, adapters: bool = False) -> bool:
        """Whether the parameters of a group stay as they are.

        If the layers have adapters, only groups that are named are trained with them.
        """
        named = group in self.lr_multipliers or (group == "embeddings" and self.new_rows_only)
        if adapters and not named:
            return True
        return self.lr_multipliers.get(group, 1) == 0


class LoraSection(Section):
    """Low-rank adapters (LoRA): train small additions to the layers, which stay as they are.

    Embeddings, positions and the final norm stay, too, unless `optimizer.lr_multipliers` names them
    or, for embeddings, `optimizer.new_rows_only` is on.
    """

    r: Natural = 0
    """Rank of the additions, such as 16; 0: no adapters, everything is trained."""
    alpha: PositiveFactor | None = None
    """Additions are multiplied by alpha / r; empty: twice r."""
    target_modules: Literal["all-linear"] | tuple[Name, ...] = "all-linear"
    """The linear layers that get them, by their names in `transformers`, such as
    `[q_proj, v_proj]`; `all-linear` is all of them but the head."""

    @model_validator(mode="after")
    def _fits_together(self) -> "LoraSection":
        if not self.r:
            self.refuse_ignored("r is 0", "alpha", "target_modules")
        if not self.target_modules:
            raise ValueError("target_modules is empty: name linear layers, or all-linear")
        return self

    @property
    def scale(self) -> float:
        """Factor of the additions."""
        return 2.0 if self.alpha is None else self.alpha / self.r


class TrainingSection(Section):
    """How to train."""

    steps: Positive
    """Optimizer steps in total."""
    batch_size: BatchSize = 32
    """Sequences per optimizer step, over all devices."""
    gradient_accumulation_steps: Positive = 1
    """Microbatches per batch, computed one after the other to save memory."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision of the computation; parameters are always float32, and so is the optimizer's
    state, except for `optimizer.mu_dtype`."""
    remat: Remat = "full"
    """What each layer stores for the backward pass, which recomputes the rest: `full` its input;
    `attention` also the output of the attention; `attention_block` also the matrix products around
    it; `dots` also the first product of the MLP; `none` everything."""
    loss_chunk: Positive = 256
    """Positions of a sequence whose logits are in memory at the same time."""
    z_loss: Factor = 0.0
    """Coefficient of the squared log of the softmax's normalizer; PaLM used 1e-4; 0: off."""
    spike_factor: Factor = 10.0
    """A step whose gradient norm is above this many times its recent level is skipped; 0: off."""
    seed: Seed = 0
    """Seed of the initialisation, the dropout and the data order."""
    log_every: Positive = 10
    """Steps between lines of metrics."""
    validate_every: Positive = 500
    """Steps between measurements of the validation perplexity."""
    checkpoint_every: Positive = 500
    """Steps between checkpoints."""
    keep_checkpoints: Positive = 2
    """How many of the newest checkpoints to keep."""
    keep_every: Natural = 0
    """Also keep every checkpoint whose step is a multiple of this; 0: none."""
    keep_best: Natural = 0
    """Also keep this many of the checkpoints with the lowest validation loss."""
    patience: Natural = 0
    """Stop after this many validations without a lower loss on the first held-out set, and keep
    the model with the lowest; 0: train all steps and keep the last."""
    max_skipped: Positive = 10
    """This many skipped steps in a row trigger `on_skipped`. A skipped step changes nothing: its
    loss or gradient is not finite, or its gradient is a spike."""
    on_skipped: Literal["stop", "rollback"] = "stop"
    """`stop` ends the run; `rollback` returns to the newest checkpoint and continues with the data
    after the skipped steps."""
    watchdog_minutes: Factor = 30.0
    """If a step, a validation, a checkpoint or a wait for data takes longer, the process exits with
    status 75, so that it can be restarted; 0: off."""
    wandb: Name | None = None
    """Weights & Biases project that also gets the metrics; empty: none."""

    @model_validator(mode="after")
    def _microbatches_divide(self) -> "TrainingSection":
        if self.batch_size % self.gradient_accumulation_steps:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of gradient_accumulation_steps "
                f"{self.gradient_accumulation_steps}"
            )
        return self


class TeacherSection(Section):
    """The source of a transfer as the teacher of the new embeddings: polishing."""

    path: Name | None = None
    """Hugging Face folder or hub id of the source; empty: no teacher. The rest of the model must be
    frozen, by `optimizer.lr_multipliers`."""
    revision: Name | None = None
    """Branch, tag or commit of a hub id."""
    next_token: Factor = 1.0
    """Weight of the next-token loss."""
    hidden_states: Factor = 1.0
    """Weight of the relative squared error of the hidden states, where tokens of both tokenizers
    end at the same byte."""
    layer: Positive | None = None
    """The layer after which the hidden states are compared, counted from 1; empty: the last one,
    after the final norm. Layers above it are not run for this loss."""
    likelihoods: Factor = 0.0
    """Weight of the divergence of the likelihoods of the text between two such places (ALM)."""
    sequence_length: SequenceLength | None = None
    """Tokens of the source per sequence; empty: twice `data.sequence_length`."""

    @model_validator(mode="after")
    def _teaches(self) -> "TeacherSection":
        if not (self.next_token or self.hidden_states or self.likelihoods):
            raise ValueError("next_token, hidden_states and likelihoods are all 0: give one weight")
        if self.path is None:
            self.refuse_ignored("path is empty", *type(self).model_fields)
        if not self.hidden_states:
            self.refuse_ignored("hidden_states is 0", "layer")
        return self


class TrainSection(TrainingSection):
    """How to train, and where the run goes."""

    out: Name
    """Run folder: checkpoints, metrics, plot and configuration."""


class RunConfig(Configuration):
    """The configuration of `clp-jax train`."""

    model: ModelSection
    data: DataSection
    mesh: MeshSection = MeshSection()
    optimizer: OptimizerSection = OptimizerSection()
    lora: LoraSection = LoraSection()
    teacher: TeacherSection = TeacherSection()
    train: TrainSection

    @model_validator(mode="after")
    def _fits_together(self) -> "RunConfig":
        if not self.data.validation:
            self.train.refuse_ignored("data.validation is empty", "keep_best", "patience")
        trainable = [
            group
            for group in get_args(ParameterGroup)
            if group != "embeddings" and not self.optimizer.freezes(group)
        ]
        if self.teacher.path and trainable:
            raise ValueError(
                "the teacher shares everything but the embeddings with the model: set "
                f"optimizer.lr_multipliers to {{{', '.join(f'{group}: 0' for group in trainable)}}}"
            )
        if self.teacher.path and self.data.restart_positions:
            raise ValueError("a teacher does not support data.restart_positions: turn it off")
        if self.teacher.path and self.train.patience:
            raise ValueError("a run with a teacher ends after all steps: set train.patience to 0")
        if self.teacher.path and self.model.init == "random":
            raise ValueError("new layers have no teacher: set model.init to pretrained")
        if self.lora.r:
            self._check_adapters()
        return self

    def _check_adapters(self) -> None:
        if self.teacher.path:
            raise ValueError("a teacher trains only embeddings: set lora.r to 0")
        if self.model.init == "random":
            raise ValueError("adapters add to trained layers: set model.init to pretrained")
        if self.optimizer.freezes("layers"):
            raise ValueError("lr_multipliers freeze the layers: set lora.r to 0")
        if self.optimizer.freezes("embeddings", adapters=True):
            self.optimizer.refuse_ignored(
                "lora freezes embeddings that lr_multipliers does not name", "embeddings_only_steps"
            )

    @property
    def predicts(self) -> bool:
        """Whether the loss needs the logits of the next token."""
        section = self.teacher
        taught = section.path is not None
        return not taught or bool(section.next_token or section.likelihoods or self.train.z_loss)
