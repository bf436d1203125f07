"""Configurations of runs, chains and corpora: sections <-> YAML <-> ``--section.key value``."""

import re
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
from typing_extensions import TypedDict

from clp_jax.errors import UserError
from clp_jax.faults import fault
from clp_jax.limits import (
    BatchSize,
    Dtype,
    Factor,
    LearningRate,
    LocalName,
    MeshSize,
    Method,
    Name,
    Natural,
    PadMultiple,
    PartialShare,
    Positive,
    PositiveFactor,
    PositiveShare,
    Seed,
    SequenceLength,
    Share,
    SourceKind,
)
from clp_jax.settings import parse_flags, read_settings

C = TypeVar("C", bound="_Configuration")

Remat = Literal["none", "dots", "attention_block", "attention", "full"]
ParameterGroup = Literal["embeddings", "positions", "layers", "final_norm"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelSection(_Section):
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


class MixedCorpusSection(_Section):
    """One of the corpora that are trained on."""

    path: LocalName
    """Folder written by `clp-jax prepare`."""
    weight: PositiveFactor | None = None
    """Its share of the sequences, on any scale."""


class DataSection(_Section):
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


class MeshSection(_Section):
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


class OptimizerSection(_Section):
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
    final_ratio: Share = 0.1
    """Learning rate at the last step, as a share of the highest."""
    restarts: Natural = 0
    """How often the learning rate jumps back to the highest and falls again (SGDR)."""
    rates: dict[ParameterGroup, Factor] = {}
    """Factors of the learning rate for embeddings, positions, layers or final_norm, such as
    `{layers: 0.1}`; what has 0 is frozen, and costs neither gradients nor optimizer state."""
    embeddings_first: Natural = 0
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
        if not any(self.rates.get(group, 1) for group in get_args(ParameterGroup)):
            raise ValueError("rates freeze everything: nothing is left to train")
        return self


class TrainingSection(_Section):
    """A training, wherever its results go."""

    steps: Positive
    """Optimizer steps in all."""
    batch_size: BatchSize = 32
    """Sequences of one optimizer step, over all devices."""
    accumulation: Positive = 1
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
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of accumulation "
                f"{self.accumulation}"
            )
        return self


class TrainSection(TrainingSection):
    """The run itself."""

    out: Name
    """Run folder: checkpoints, metrics, plot and configuration."""


class ChainModelSection(_Section):
    """One model of a chain."""

    name: str = Field(pattern=r"^\w[\w.-]*$")
    """Its folder in that of the chain."""
    source: Name
    """Hugging Face folder or hub id of the model whose layers it gets."""
    dropout: PartialShare | None = None
    """Replaces every dropout rate of the source's configuration; empty keeps them."""
    data: DataSection | None = None
    """Its own corpora; empty: those of the chain."""
    mesh: MeshSection = MeshSection()
    optimizer: OptimizerSection = OptimizerSection()
    train: TrainingSection


class SourceSection(_Section):
    """One source of text."""

    input: Name
    """File, glob or hub data set, written `hf://NAME[:CONFIG][@SPLIT]`."""
    kind: SourceKind = "files"
    """How its records are laid out: `files`, or a corpus by name, such as `oscar` or `gc4`."""
    text_field: Name | None = None
    """Field of a record that holds the text; empty: as the kind has it."""


class CleanSection(_Section):
    """Which documents are dropped or changed, one by one."""

    language: Name | None = None
    """ISO 639-1 code: documents in other languages are dropped; empty keeps all."""
    language_score: Share = 0.65
    """How sure the language identification must be."""
    exclude_tags: tuple[str, ...] = ()
    """Documents to which their source gave one of these tags are dropped."""
    repair_encoding: bool = False
    """Repair text that was decoded wrongly, such as `fÃ¼r`."""
    boilerplate: bool = False
    """Drop lines on cookies, scripts and placeholders (rules of C4)."""
    min_words: Natural = 0
    """Shorter documents are dropped."""
    max_characters: Positive | None = None
    """Longer documents are dropped; empty keeps all."""
    quality: bool = False
    """Drop documents of symbols, bullets and odd words (rules of Gopher)."""
    repetition: bool = False
    """Drop documents that repeat themselves (rules of Gopher)."""
    mask_personal_data: bool = False
    """Replace e-mail addresses, phone numbers and IBANs."""


class DeduplicateSection(_Section):
    """What is taken out because it was there before."""

    exact: bool = False
    """Drop documents that are equal to an earlier one."""
    near: bool = False
    """Drop documents that are nearly equal to another one (MinHash)."""
    lines: Factor = 0.0
    """Share of the documents: a line that stands in more of them, and in more than a hundred, is
    dropped but for its first copy; 0 keeps all."""
    substrings: Natural = 0
    """Cut passages of at least so many bytes that were there before; 0 keeps all."""

    @field_validator("lines")
    @classmethod
    def _is_share(cls, share: float) -> float:
        if share >= 1:
            raise ValueError(
                f"{share:g} is no share of the documents: write 0.01 for one in a hundred"
            )
        return share

    @field_validator("substrings")
    @classmethod
    def _long_enough(cls, length: int) -> int:
        if 0 < length < 50:
            raise ValueError(f"{length} bytes are a common phrase: choose 50 or more, or 0")
        return length


class DecontaminateSection(_Section):
    """Which documents are dropped because a test would be answered from memory."""

    against: tuple[Name, ...] = ()
    """Files, globs and hub data sets with the texts of the tests."""
    text_fields: tuple[Name, ...] = ("text",)
    """Fields of their records that hold text."""
    ngram: Positive = 13
    """Words in a row that must not be shared."""


class CorpusSection(_Section):
    """What is written."""

    heldout: PartialShare = 0.0
    """Share of the documents that is held out in OUT/heldout, chosen by their hash."""
    max_broken: Natural = 0
    """Broken records of an input file that are skipped; with more the run ends."""


class ExecutionSection(_Section):
    """Where the work is done; the corpus is the same everywhere."""

    executor: Literal["local", "slurm", "ray"] = "local"
    """`local`: processes of this machine; the others need a folder that all machines see."""
    workers: int = Field(-1, ge=-1, le=2**20)
    """Tasks that run at the same time; -1: one for each core (slurm and ray: no limit)."""
    partition: str | None = None
    """Slurm partition, or several with commas between them."""
    time: str = "24:00:00"
    """Slurm time limit of a task."""
    memory: Positive = 4
    """Memory of a task in GB that slurm and ray are asked for."""

    @field_validator("partition")
    @classmethod
    def _is_partition(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"\w[\w.,-]*", name):
            raise ValueError(f"{name!r} is no name of a partition of Slurm")
        return name

    @field_validator("time")
    @classmethod
    def _is_time(cls, limit: str) -> str:
        if not re.fullmatch(r"[0-9]+(:[0-9]+){0,2}|[0-9]+-[0-9]+(:[0-9]+){0,2}|UNLIMITED", limit):
            raise ValueError(f"{limit!r} is no time limit: write '24:00:00' or '2-12' (days-hours)")
        return limit


class _Configuration(_Section):
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
            if not (isinstance(kind, type) and issubclass(kind, _Section)):
                continue
            lines.append(f"{section}: {kind.__doc__}")
            for key, knob in kind.model_fields.items():
                default = "required" if knob.is_required() else f"default {_as_flag(knob.default)}"
                lines.append(f"  --{section}.{key} ({default})\n      {knob.description}")
        return "\n".join(lines)

    def to_yaml(self) -> str:
        """The whole configuration, defaults included, as YAML."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)


class RunConfig(_Configuration):
    """Everything that `clp-jax train` needs to know."""

    model: ModelSection
    data: DataSection
    mesh: MeshSection = MeshSection()
    optimizer: OptimizerSection = OptimizerSection()
    train: TrainSection


class TransferConfig(_Configuration):
    """How a source model gets the vocabulary of a helper."""

    method: Method = "auto"
    """How new rows are made; `clp` is the paper's, `auto` ranks all methods and takes the best."""
    data: tuple[Name, ...] = ()
    """A little text of the target language, to choose and calibrate by; not what is measured on."""
    text_field: Name = "text"
    """Field of a record that holds the text."""
    copy_share: Share | None = None
    """How much of a shared token's row is the source's, 0 to 1; empty: as the method has it."""
    match_norms: bool | None = None
    """Make computed rows as different from each other as the source's rows are; empty: no, and
    `auto` tries both."""
    calibrate: bool = False
    """Shift the output rows so that each token is expected as often as the text has it."""
    strict: bool = False
    """Keep the paper's formula even for rows where its weights nearly cancel out."""
    fuzzy: bool = False
    """Also copy rows of tokens that differ in case or in the space before them."""
    extend: bool = False
    """Keep the source's vocabulary and add the target's tokens to it: a model of two languages."""
    pad_to_multiple_of: PadMultiple = 1
    """Add rows that no token has, until their number is a multiple of this."""
    token_vectors: LocalName | None = None
    """For `focus`: .npy file with a row for each target id; empty: trained on the data."""
    source_vectors: LocalName | None = None
    """For `wechsel`: word vectors of the source language, .vec, .txt or .npy."""
    target_vectors: LocalName | None = None
    """For `wechsel`: word vectors of the target language."""
    dictionary: LocalName | None = None
    """For `wechsel`: file of word pairs to align the two by; empty: they are aligned already."""
    trace: bool = False
    """Also write transfer_trace.jsonl: what each row is made of."""
    seed: Seed = 0
    """Seed of random rows and of trained vectors."""
    dtype: Dtype | None = None
    """float32, bfloat16, float16 or float64; empty keeps the source's."""

    @model_validator(mode="after")
    def _fits_together(self) -> "TransferConfig":
        chosen = [name for name in ("copy_share", "match_norms", "calibrate") if name in self.given]
        if self.method == "auto" and chosen:
            raise ValueError(f"{chosen[0]} is chosen by the method auto: name another method")
        if self.strict and self.method != "clp":
            raise ValueError(f"strict belongs to the method clp, not to {self.method}")
        if self.calibrate and not self.data:
            raise ValueError("calibrate needs data: text of the target language")
        if self.extend and (self.calibrate or self.copy_share not in (None, 1)):
            raise ValueError("extend keeps the source's rows: they are copied, and not calibrated")
        if (self.source_vectors is None) != (self.target_vectors is None):
            raise ValueError("source_vectors and target_vectors belong together: give both")
        return self

    @property
    def given(self) -> dict[str, Any]:
        """The keys that differ from their defaults, as JSON has them."""
        return self.model_dump(mode="json", exclude_defaults=True)


class TransferOptions(TypedDict, total=False):
    """The keys of `TransferConfig` as the keyword arguments of a function."""

    method: Method
    data: Sequence[Name]
    text_field: Name
    copy_share: Share | None
    match_norms: bool | None
    calibrate: bool
    strict: bool
    fuzzy: bool
    extend: bool
    pad_to_multiple_of: PadMultiple
    token_vectors: LocalName | None
    source_vectors: LocalName | None
    target_vectors: LocalName | None
    dictionary: LocalName | None
    trace: bool
    seed: Seed
    dtype: Dtype | None


class PrepareConfig(_Configuration):
    """Everything that `clp-jax prepare` needs to know: a recipe that turns text into a corpus."""

    sources: tuple[SourceSection, ...] = ()
    clean: CleanSection = CleanSection()
    deduplicate: DeduplicateSection = DeduplicateSection()
    decontaminate: DecontaminateSection = DecontaminateSection()
    corpus: CorpusSection = CorpusSection()
    execution: ExecutionSection = ExecutionSection()


class ChainConfig(_Configuration):
    """Everything that `clp-jax chain` needs to know: models, each the helper of the next."""

    helper: Name
    """Model of the target language that helps the first one; all get its tokenizer."""
    out: LocalName
    """Folder of the chain, with a folder for each model."""
    transfer: TransferConfig = TransferConfig()
    data: DataSection
    models: list[ChainModelSection] = Field(min_length=1)

    @field_validator("models")
    @classmethod
    def _names_differ(cls, models: list[ChainModelSection]) -> list[ChainModelSection]:
        names = [model.name for model in models]
        if len(set(names)) < len(names):
            raise ValueError(f"each name must be different, but they are {', '.join(names)}")
        return models


def _as_flag(value: Any) -> str:
    """A default as a flag would have it."""
    plain = [*value] if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("...\n").strip()
