"""The model card of a run: what it started from, what it was trained on, what was measured."""

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from clp_jax.checkpoint.card import CITATION, USE, flat, inherited, render_card
from clp_jax.checkpoint.hub import MANIFEST
from clp_jax.checkpoint.results_card import model_index
from clp_jax.config import ParameterGroup, RunConfig
from clp_jax.data.corpus.store import MANIFEST as CORPUS_MANIFEST
from clp_jax.errors import UserError
from clp_jax.files import public_name, read_json
from clp_jax.results import Results, TextScore
from clp_jax.train.metrics import Curve, bits_per_byte, validation_curve, validation_sets
from clp_jax.transfer.report import describe_embeddings

HUB_DATA = re.compile(r"hf://([^:@]+)")
OPTIMIZERS = {"adamw": "AdamW", "adafactor": "Adafactor", "lion": "Lion", "muon": "Muon"}
NORMALISATIONS = ("token", "word", "byte")
POINTS = 5
"""How many points of a curve a card shows."""
UNREADABLE = (UserError, LookupError, TypeError, AttributeError, ValueError)
"""What reading a manifest of another program can raise; the card then leaves it out."""


def run_card(
    config: RunConfig,
    corpora: str,
    files: Path,
    metrics: Sequence[Mapping[str, Any]] = (),
    steps: int | None = None,
) -> str:
    """The ``README.md`` of a run's model: inherited metadata and embeddings, and its own training.

    Args:
        config: The run's configuration.
        corpora: The table of its corpora.
        files: Folder with the card and the ``transfer.json`` of the model from which it starts, or
            of the run itself.
        metrics: The lines of its metrics; of each held-out set, the last perplexity and bits per
            byte over the tokens are reported.
        steps: Steps of the model, if it has stopped early.
    """
    model, data, train, optimizer = config.model, config.data, config.train, config.optimizer
    name = public_name(model.path)
    if model.init == "pretrained":
        start = f"the weights of `{name}`"
    else:
        start = f"new weights in the shape of `{name}`"
    if steps is None:
        steps = train.steps
    else:
        metrics = [line for line in metrics if line["step"] <= steps]
    tokens = steps * train.batch_size * data.sequence_length
    rows = [
        ("start", start),
        (
            "training",
            f"{steps:,} steps of {train.batch_size:,} sequences of "
            f"{data.sequence_length:,} tokens: {tokens:,} tokens",
        ),
        (
            "optimizer",
            f"{OPTIMIZERS[optimizer.name]}, learning rate {optimizer.learning_rate:g} "
            f"({optimizer.schedule} after {optimizer.warmup_steps:,} steps of warm-up), "
            f"{train.dtype} computation",
        ),
        *_lora(config),
    ]
    if train.patience:
        chosen = f"of up to {train.steps:,} steps the one with the lowest held-out loss: {steps:,}"
        rows.append(("early stopping", chosen))
    for held, bits in bits_per_byte(metrics).items():
        text = f"`{public_name(data.validation.get(held, held))}`" + f" ({held})" * bool(held)
        perplexities = {
            unit: validation_curve(metrics, unit, held)[-1][1] for unit in NORMALISATIONS
        }
        figures = ", ".join(f"{value:,.4g} per {unit}" for unit, value in perplexities.items())
        rows.append((f"perplexity on {text} after {bits[-1][0]:,} tokens", figures))
        points = ", ".join(f"{value:.3f} after {tokens:,} tokens" for tokens, value in _few(bits))
        rows.append((f"bits per byte on {text}", points))
    for line in metrics:
        if "embeddings/untouched" in line:
            touched, untouched = (line[f"embeddings/{name}"] for name in ("touched", "untouched"))
            moved = f"; the other {untouched:,.0f} moved as these did" if untouched else ""
            rows.append(("new rows", f"{touched:,.0f} are in the text{moved}"))
    table = "\n".join(f"| {what} | {value} |" for what, value in rows)
    known = inherited(model.path, files) if model.init == "pretrained" else {}
    embeddings = _embeddings(files) if model.init == "pretrained" else ""
    body = f"""\
A causal language model, trained with clp_jax.

| | |
|---|---|
{table}

Training text:

{corpora}

{embeddings}{USE}
## Limits

The training text was not checked for truth, bias or harm. The licences of the model from which it
started and of the text apply to it.
{f"{chr(10)}{CITATION}" if embeddings else ""}"""
    title = Path(train.out).name
    measured = {"model-index": model_index(title, Results(texts=_held_out(config, metrics)))}
    return render_card(title, known | _text_metadata(config, known) | measured, body)


def _lora(config: RunConfig) -> list[tuple[str, str]]:
    """What a run with adapters trains."""
    lora, optimizer = config.lora, config.optimizer
    if not lora.r:
        return []
    targets = lora.target_modules
    where = "all linear layers" if targets == "all-linear" else f"`{'`, `'.join(targets)}`"
    whole = [
        group
        for group in get_args(ParameterGroup)
        if group != "layers" and not optimizer.freezes(group, adapters=True)
    ]
    more = f"; in full: {', '.join(whole)}" if whole else ""
    return [("LoRA", f"rank {lora.r}, alpha {lora.scale * lora.r:g}, in {where}{more}")]


def _held_out(config: RunConfig, metrics: Sequence[Mapping[str, Any]]) -> list[TextScore]:
    """The last finite measurement on each held-out set."""
    found = []
    for name in validation_sets(metrics):
        curves = [validation_curve(metrics, unit, name) for unit in ("byte", "token")]
        byte, token = (curve[-1][1] for curve in curves)
        if math.isfinite(byte) and math.isfinite(token):
            text = name or Path(config.data.validation.get(name, "validation")).name
            found.append(TextScore(text, math.log2(byte), byte, token))
    return found


def _few(curve: Curve) -> Curve:
    """At most `POINTS` points of a curve, the first and the last among them."""
    steps = min(len(curve), POINTS) - 1
    chosen = {round(number * (len(curve) - 1) / max(steps, 1)) for number in range(steps + 1)}
    return tuple(curve[number] for number in sorted(chosen))


def _embeddings(files: Path) -> str:
    """How the embeddings were made, if a manifest describes it."""
    if not (files / MANIFEST).exists():
        return ""
    with suppress(*UNREADABLE):
        return describe_embeddings(read_json(files / MANIFEST)) + "\n"
    return ""


def _text_metadata(config: RunConfig, known: Mapping[str, Any]) -> dict[str, Any]:
    """The languages and hub data sets of the corpora; the inherited language if they have none."""
    languages, inputs = [], []
    for part in config.data.train:
        with suppress(*UNREADABLE):
            recipe = read_json(Path(part.path) / CORPUS_MANIFEST)["recipe"]
            languages.append(str(recipe["clean"]["language"] or ""))
            inputs += [str(source["input"]) for source in recipe["sources"]]
    datasets = [HUB_DATA.match(name) for name in inputs]
    return {
        "language": flat(languages) or known.get("language"),
        "datasets": flat([known.get("datasets"), [found[1] for found in datasets if found]]),
    }
