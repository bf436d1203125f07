"""How a model reads a text with its tokenizer: how well, in how many tokens, and at what cost."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from clp_jax.models import abstract_model, read_decoder_config
from clp_jax.transfer.calibration import SCORED_WINDOWS, Sample, make_sample
from clp_jax.transfer.pair import TransferPair
from clp_jax.transfer.selection import Choice, rows_of
from clp_jax.transfer.table import NewTable


@dataclass(frozen=True)
class Reading:
    """What the second half of a text costs a model, per byte.

    Attributes:
        bits_per_byte: the loss before any training; None if it was not measured.
        tokens_per_byte: of the tokenizer, end-of-text tokens included.
        tokens_per_word: the same per word, separated by white space.
        flops_per_byte: floating-point operations of the forward pass, a third of those of training.
        unknown: the share of the bytes that became unknown tokens, which cost too little.
    """

    bits_per_byte: float | None
    tokens_per_byte: float
    tokens_per_word: float
    flops_per_byte: float
    unknown: float

    @classmethod
    def of(cls, config: Mapping[str, Any], sample: Sample, loss: float | None) -> "Reading":
        """What a text costs a model.

        Args:
            config: the model's ``config.json``.
            sample: the text, tokenized by its tokenizer.
            loss: its loss there in bits per byte, if known.
        """
        model = abstract_model(read_decoder_config(dict(config)))
        flops = model.flops_per_token(sample.evaluation.shape[1] - 1) / 3
        return cls(
            loss,
            1 / sample.bytes_per_token,
            1 / sample.words_per_token,
            flops / sample.bytes_per_token,
            sample.unknown,
        )

    def to_dict(self) -> dict[str, float | None]:
        """The figures by name, ready for JSON."""
        return asdict(self)


def read_with_source(pair: TransferPair, *, measured: bool) -> Reading:
    """What the text costs the source with its own tokenizer and tables.

    Args:
        pair: the source and the text.
        measured: whether to load the model and measure its loss.
    """
    source = pair.source
    rows = source.tensors[source.tables[0]].shape[0]
    positions = read_decoder_config(source.config).max_positions
    sample = make_sample(pair.text, source.tokenizer, rows=rows, positions=positions)
    if not measured:
        return Reading.of(source.config, sample, None)
    evaluator = pair.evaluator.with_tokenizer(source.config, sample)
    tables = {name: source.tensors[name].read().astype("f4") for name in source.tables}
    return Reading.of(source.config, sample, evaluator.loss(tables, SCORED_WINDOWS))


def read_with_target(choice: Choice, tables: Mapping[str, NewTable], *, measured: bool) -> Reading:
    """What the text costs the new model with these tables.

    Args:
        choice: the source, the text and the ranking, if there was one.
        tables: the new tables by name.
        measured: whether to load the model and measure its loss, if the ranking did not.
    """
    pair, loss = choice.pair, None
    if choice.scores:
        best = choice.scores[0]
        loss = best.start if best.steps else best.value
    elif measured:
        loss = pair.evaluator.loss(rows_of(tables), SCORED_WINDOWS)
    return Reading.of(pair.config(None), pair.sample, loss)
