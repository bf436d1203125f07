"""The whole method at small scale: from text to a German model and the proof that it works."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clp_jax.arguments import checked
from clp_jax.checkpoint.hub import MANIFEST as TRANSFER
from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.config import RunConfig
from clp_jax.convert import convert_checkpoint
from clp_jax.data.corpus.store import MANIFEST as CORPUS
from clp_jax.data.io.readers import read_documents
from clp_jax.data.prepare import prepare_corpus
from clp_jax.errors import RunStopped, UserError
from clp_jax.evaluate.perplexity import evaluate_perplexity
from clp_jax.evaluate.plots import plot_perplexity, tokens_to_reach
from clp_jax.evaluate.tables import markdown_table
from clp_jax.files import new_path, read_json, writable_path, write_json
from clp_jax.generate import generate_text
from clp_jax.limits import LocalPath, Name
from clp_jax.quickstart.inputs import made_up_text, own_text, write_new_model, write_text
from clp_jax.train.loop import RunSummary, train_model
from clp_jax.transfer.report import summarize
from clp_jax.transfer.stage import transfer_model

STAGES = 8
RESULT = "quickstart.json"
PROMPT = 8
"""Tokens of held-out text that the sample continues."""


@dataclass(frozen=True)
class ModelSize:
    """The size of a GPT-2, and how long it is trained before the transfer."""

    layers: int
    width: int
    heads: int
    steps: int


@dataclass(frozen=True)
class Sizes:
    """The sizes of everything; the defaults take two CPU cores about two minutes."""

    source: ModelSize = ModelSize(layers=3, width=128, heads=4, steps=400)
    helper: ModelSize = ModelSize(layers=2, width=64, heads=2, steps=400)
    target_steps: int = 160
    """Optimizer steps of continued pretraining, and of training from scratch."""
    measurements: int = 8
    """How often the perplexity is measured during training."""
    batch_size: int = 8
    sequence_length: int = 64
    learning_rate: float = 3e-3
    vocabulary: int = 2048
    """Vocabulary size of each tokenizer."""
    characters: int = 1_000_000
    """Characters of training text per language."""
    heldout_characters: int = 20_000
    """Characters of held-out text in the target language."""


@checked
def run_quickstart(
    out: LocalPath,
    corpus_source: Name | None = None,
    corpus_target: Name | None = None,
    *,
    sizes: Sizes = Sizes(),
) -> dict[str, Any]:
    """Train a small English and a tiny German model, transfer, and compare with training anew.

    Everything is written to ``out``: text, tokenizers, corpora, models, runs, ``table.md``,
    ``perplexity.png`` and ``quickstart.json``. Each stage prints a numbered line; the table follows
    at the end. The same call resumes an interrupted one.

    Args:
        out: The folder to write; it must be new, empty or hold the same call's unfinished work.
        corpus_source: File or glob with text in the source language. By default, English sentences
            are made up for the source language and German ones for the target language.
        corpus_target: File or glob with text in the target language.
        sizes: The sizes of everything.

    Returns:
        The content of ``quickstart.json``: the curves, the perplexities, a sample, the sizes.

    Raises:
        UserError: ``out`` holds something else, only one of the corpora is given, or one has too
            little text.
        RunStopped: the call was interrupted; finished work is kept.
    """
    out = writable_path(out)
    if (corpus_source is None) != (corpus_target is None):
        raise UserError(
            "Text in both languages is needed: name a source corpus and a target corpus."
        )
    corpora = [corpus for corpus in (corpus_source, corpus_target) if corpus is not None]
    settings = {"corpora": corpora, "sizes": asdict(sizes)}
    _check_place(out, settings)
    own = [read_documents([corpus]) for corpus in corpora]
    try:
        return _run(out, own, sizes, settings)
    except KeyboardInterrupt:
        raise RunStopped(f"{out} keeps the finished work.") from None


def _check_place(out: Path, settings: dict[str, Any]) -> None:
    """Check that ``out`` is new or holds unfinished work with the same settings.

    Raises:
        UserError: it is neither.
    """
    if not (out / RESULT).exists():
        new_path(out)
        return
    begun = read_json(out / RESULT)
    if "curves" in begun:
        raise UserError(f"{out} holds a finished quickstart: choose another output folder.")
    if begun != settings:
        raise UserError(
            f"{out} was started with other corpora or sizes: remove it or choose another output "
            "folder."
        )


def _run(
    out: Path, own: Sequence[Iterator[str]], sizes: Sizes, settings: dict[str, Any]
) -> dict[str, Any]:
    began = time.monotonic()
    text, new, models = out / "text", out / "new", out / "models"
    corpora, runs = out / "corpora", out / "runs"

    with _stage(1, "text in the source and the target language"):
        amount = (sizes.characters, sizes.heldout_characters)
        if own:
            source, _ = own_text(own[0], "The source corpus", *amount)
            target, heldout = own_text(own[1], "The target corpus", *amount)
        else:
            source, _ = made_up_text("en", *amount)
            target, heldout = made_up_text("de", *amount)
        files = {name: text / f"{name}.jsonl" for name in ("source", "target", "heldout")}
        write_json(out / RESULT, settings)
        for name, documents in (("source", source), ("target", target), ("heldout", heldout)):
            write_text(documents, files[name])

    with _stage(2, "a tokenizer for each language, and the tokenised text"):
        _write_new_model(new / "source", files["source"], sizes.source, sizes)
        _write_new_model(new / "helper", files["target"], sizes.helper, sizes)
        for name, tokenizer in (("source", "source"), ("target", "helper"), ("heldout", "helper")):
            if not (corpora / name / CORPUS).exists():
                prepare_corpus([str(files[name])], new / tokenizer, corpora / name)

    with _stage(3, "the source model, trained on the source language"):
        _train_new(out, "source", corpora / "source", sizes.source.steps, sizes)

    with _stage(4, "the small helper model, trained on the target language"):
        _train_new(out, "helper", corpora / "target", sizes.helper.steps, sizes)

    with _stage(5, "transfer: the source's layers, with new embeddings by the best method"):
        start = models / "start"
        if start.exists():
            manifest = read_json(start / TRANSFER)
        else:
            manifest = transfer_model(
                models / "source", models / "helper", start, data=[str(files["target"])]
            )
        print(summarize(manifest, str(start)))

    with _stage(6, "continued pretraining, and the same model from scratch"):
        transferred, scratch = (
            _train(
                runs / name,
                start,
                init,
                corpora / "target",
                sizes.target_steps,
                sizes,
                validation=corpora / "heldout",
            )
            for name, init in (("transfer", "pretrained"), ("scratch", "random"))
        )

    with _stage(7, "perplexity on held-out text"):
        perplexity = {
            name: evaluate_perplexity(
                run.folder, [str(files["heldout"])], sequence_length=sizes.sequence_length
            ).to_dict()
            for name, run in (("transfer", transferred), ("scratch", scratch))
        }

    with _stage(8, "the model in PyTorch's format, and a sample of its text"):
        if not (models / "target").exists():
            convert_checkpoint(transferred.folder, models / "target", "hf")
        cut = load_tokenizer(models / "target")
        prompt = cut.decode(cut.encode(heldout[0])[:PROMPT]).rstrip("\ufffd")
        sample = generate_text(
            models / "target", prompt, max_new_tokens=sizes.sequence_length - 2 * PROMPT
        )

    curves = {"transfer": transferred.curve, "scratch": scratch.curve}
    reached = tokens_to_reach(transferred.curve, scratch.curve[-1][1])
    result = settings | {
        "curves": curves,
        "share_of_tokens": None if reached is None else reached / scratch.tokens,
        "perplexity": perplexity,
        "transfer": manifest,
        "sample": sample,
        "seconds": round(time.monotonic() - began, 1),
    }
    report = _report(result, out)
    print(f"\n{report}")
    plot_perplexity(curves, out / "perplexity.png", "Held-out perplexity: transfer against scratch")
    (out / "table.md").write_text(report + "\n", "utf-8")
    write_json(out / RESULT, result)
    return result


@contextmanager
def _stage(number: int, what: str) -> Iterator[None]:
    print(f"[{number}/{STAGES}] {what} ...", flush=True)
    began = time.monotonic()
    yield
    print(f"      done in {time.monotonic() - began:.0f} s", flush=True)


def _write_new_model(folder: Path, text: Path, size: ModelSize, sizes: Sizes) -> None:
    if folder.exists():
        return
    write_new_model(
        folder,
        text,
        vocabulary=sizes.vocabulary,
        positions=sizes.sequence_length,
        layers=size.layers,
        width=size.width,
        heads=size.heads,
    )


def _train_new(out: Path, name: str, corpus: Path, steps: int, sizes: Sizes) -> None:
    model = out / "models" / name
    if model.exists():
        return
    run = out / "runs" / name
    _train(run, out / "new" / name, "random", corpus, steps, sizes)
    convert_checkpoint(run, model, "hf")


def _train(
    run: Path,
    model: Path,
    init: str,
    corpus: Path,
    steps: int,
    sizes: Sizes,
    validation: Path | None = None,
) -> RunSummary:
    return train_model(
        RunConfig.from_dict(
            {
                "model": {"path": str(model), "init": init},
                "data": {
                    "train": str(corpus),
                    "validation": validation and str(validation),
                    "sequence_length": sizes.sequence_length,
                },
                "optimizer": {
                    "learning_rate": sizes.learning_rate,
                    "warmup_steps": steps // 20,
                },
                "train": {
                    "out": str(run),
                    "steps": steps,
                    "batch_size": sizes.batch_size,
                    "dtype": "float32",
                    "remat": "none",
                    "loss_chunk": sizes.sequence_length,
                    "validate_every": steps // sizes.measurements,
                    "checkpoint_every": steps,
                },
            }
        ),
        resume=True,
    )


def _report(result: dict[str, Any], out: Path) -> str:
    """The results as Markdown: the curves side by side, the perplexities, a list of the files."""
    transferred, scratch = result["curves"]["transfer"], result["curves"]["scratch"]
    curves = markdown_table(
        ("training tokens", "perplexity after transfer", "perplexity from scratch"),
        [
            (f"{tokens:,}", f"{ours:,.1f}", f"{theirs:,.1f}")
            for (tokens, ours), (_, theirs) in zip(transferred, scratch, strict=True)
        ],
    )
    units = ("token", "word", "byte")
    perplexities = markdown_table(
        ("held-out perplexity per", *units),
        [
            (name, *(f"{values[f'{unit}_perplexity']:,.4g}" for unit in units))
            for name, values in result["perplexity"].items()
        ],
    )
    share = result["share_of_tokens"]
    match share:
        case None:
            verdict = "The transfer does not reach the last perplexity of training from scratch."
        case 0:
            verdict = "The transfer is below scratch's last perplexity before any training."
        case _:
            verdict = (
                f"The transfer reaches scratch's last perplexity with {share:.0%} of the tokens."
            )
    places = markdown_table(
        ("what", "where"),
        [
            ("the model, for PyTorch", f"{out}/models/target"),
            ("source, helper, the transfer before training", f"{out}/models"),
            ("runs with metrics and checkpoints", f"{out}/runs"),
            ("plot", f"{out}/perplexity.png"),
            ("all figures", f"{out}/quickstart.json"),
        ],
    )
    size = result["sizes"]["vocabulary"]
    verdict += f" Uniform guessing over the {size:,} tokens has a perplexity of {size:,}."
    sample = f"A sample: {result['sample']!r}"
    return "\n\n".join((curves, verdict, perplexities, sample, places))
