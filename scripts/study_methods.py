"""Every method of the transfer on equal terms: loss before training and after equal tokens.

    python scripts/study_methods.py --source-text 'english/*.jsonl.zst' \\
        --target-text 'german/train.jsonl.zst' --heldout 'german/heldout.jsonl.zst' --out study

Trains, for each seed, a source model on the source text and a helper on the target text; transfers
with each method; trains every result, and the same model from scratch, for the same tokens in the
same order. `auto` sees training text only, never the held-out text that the losses are measured on.
What is there already is not made again. Writes study.json, table.md and a plot.

`--size base` is for a GPU or a TPU: a GPT-2 of 12 layers x 768, on some 40 million characters.
"""

import argparse
import math
import random
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from clp_jax import RunConfig, convert_checkpoint, prepare_corpus, train_model, transfer_model
from clp_jax.data.io.readers import read_documents
from clp_jax.evaluate.plots import plot_perplexity, tokens_to_reach
from clp_jax.evaluate.tables import markdown_table
from clp_jax.files import new_folder, read_json, write_json
from clp_jax.mesh import use_compilation_cache
from clp_jax.quickstart.inputs import END_OF_TEXT, own_text, write_new_model, write_text
from clp_jax.quickstart.run import ModelSize

METHODS = (
    "scratch", "random", "mean", "subword", "clp", "clp-sparse", "clp-topk", "omp", "wechsel",
    "focus", "ridge", "procrustes", "ridge:0.25:true", "procrustes:0.25:true", "auto",
)  # fmt: skip
PLOTTED = ("scratch", "random", "clp", "clp-sparse", "focus", "ridge", "auto")


@dataclass(frozen=True)
class StudySize:
    """The models, and how they are trained; after the transfer at half the learning rate."""

    source: ModelSize
    helper: ModelSize
    learning_rate: float
    batch: int = 16
    length: int = 128
    dtype: str = "float32"


SIZES = {
    "tiny": StudySize(ModelSize(1, 32, 2, 4), ModelSize(1, 16, 2, 4), 1e-3),
    "small": StudySize(ModelSize(4, 128, 4, 1500), ModelSize(2, 64, 2, 1500), 2e-3),
    "larger": StudySize(ModelSize(6, 256, 4, 500), ModelSize(3, 128, 4, 500), 1.5e-3),
    "base": StudySize(
        ModelSize(12, 768, 12, 1500), ModelSize(6, 384, 6, 1500), 1e-3, 64, 512, "bfloat16"
    ),
}
LANGUAGES = {"source": "source", "helper": "target"}
"""The models that are trained beforehand, and the language of each."""

HELDOUT_DOCUMENTS, HELDOUT_CHARACTERS = 60, 1_500


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source-text", required=True, metavar="GLOB")
    parser.add_argument("--target-text", required=True, metavar="GLOB")
    parser.add_argument(
        "--heldout", required=True, metavar="GLOB", help="target text to measure on"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--vocabulary", type=int, default=4096, help="tokens of each tokenizer")
    parser.add_argument("--unigram", action="store_true", help="a Unigram tokenizer for the target")
    parser.add_argument("--characters", type=int, default=9_000_000, help="text of each language")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--methods",
        nargs="+",
        default=METHODS,
        metavar="NAME[:SOURCE_WEIGHT[:MATCH_SPREAD]]",
        help="methods, with other values than their own, such as ridge:1:false",
    )
    parser.add_argument("--steps", type=int, default=100, help="steps after the transfer")
    return parser.parse_args()


def write_texts(options: argparse.Namespace, out: Path) -> None:
    """Training text of both languages, held-out text, word vectors of both and a dictionary."""
    if out.exists():
        return
    with new_folder(out) as folder:
        taken = {}
        for name, glob in (("source", options.source_text), ("target", options.target_text)):
            documents = read_documents([glob])
            taken[name], _ = own_text(documents, f"The {name} corpus", options.characters, 1_000)
            write_text(taken[name], folder / f"{name}.jsonl")
        if any(method.startswith("wechsel") for method in options.methods):
            write_word_vectors(taken, folder)
        heldout = list(read_documents([options.heldout]))
        random.Random(0).shuffle(heldout)
        cut = [document[:HELDOUT_CHARACTERS] for document in heldout[:HELDOUT_DOCUMENTS]]
        write_text(cut, folder / "heldout.jsonl")


def write_word_vectors(texts: dict[str, list[str]], folder: Path) -> None:
    """Vectors of both languages' words, and a dictionary."""
    from gensim.models import Word2Vec

    vectors = {}
    for name, documents in texts.items():
        words = [re.findall(r"\w+|[^\w\s]", document) for document in documents]
        vectors[name] = Word2Vec(words, vector_size=100, workers=1, seed=0, epochs=3).wv
        np.save(folder / f"{name}.npy", vectors[name].vectors)
        names = "\n".join(vectors[name].index_to_key)
        (folder / f"{name}.txt").write_text(names + "\n", "utf-8")
    # Without a real dictionary, words that both languages write alike stand in for one.
    alike = [word for word in vectors["source"].index_to_key if word in vectors["target"]]
    (folder / "dictionary.txt").write_text("".join(f"{w}\t{w}\n" for w in alike), "utf-8")


def write_new_models(options: argparse.Namespace, texts: Path, out: Path) -> None:
    """Configurations and tokenizers of both models, and the texts as tokens."""
    if out.exists():
        return
    with new_folder(out) as folder:
        study = SIZES[options.size]
        for side, text in LANGUAGES.items():
            model: ModelSize = getattr(study, side)
            write_new_model(
                folder / side,
                texts / f"{text}.jsonl",
                vocabulary=options.vocabulary,
                positions=study.length,
                layers=model.layers,
                width=model.width,
                heads=model.heads,
            )
        if options.unigram:
            write_unigram(folder / "helper", texts / "target.jsonl", options.vocabulary)
        for text, side in (("source", "source"), ("target", "helper"), ("heldout", "helper")):
            prepare_corpus([str(texts / f"{text}.jsonl")], folder / side, folder / f"corpus-{text}")


def write_unigram(folder: Path, text: Path, vocabulary: int) -> None:
    """Put a SentencePiece-like Unigram tokenizer in the place of the one that is there."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT, "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(read_documents([str(text)]), trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token="<unk>",
    ).save_pretrained(folder)
    config = read_json(folder / "config.json")
    end = tokenizer.token_to_id(END_OF_TEXT)
    ids = {"bos_token_id": end, "eos_token_id": end, "vocab_size": tokenizer.get_vocab_size()}
    write_json(folder / "config.json", config | ids)


def train(
    model: Path,
    run: Path,
    corpora: tuple[Path, Path | None],
    study: StudySize,
    *,
    init: str,
    steps: int,
    learning_rate: float,
    seed: int,
) -> list[tuple[int, float]]:
    """Train, and return the tokens seen and the loss on the validation corpus."""
    corpus, validation = corpora
    settings: dict[str, Any] = {
        "model": {"path": str(model), "init": init},
        "data": {
            "train": str(corpus),
            "validation": validation and str(validation),
            "sequence_length": study.length,
        },
        "optimizer": {"learning_rate": learning_rate, "warmup_steps": steps // 20},
        "train": {
            "out": str(run),
            "steps": steps,
            "batch_size": study.batch,
            "dtype": study.dtype,
            "remat": "none",
            "loss_chunk": study.length,
            "seed": seed,
            "validate_every": max(steps // 4, 1),
            "checkpoint_every": steps,
        },
    }
    summary = train_model(RunConfig.from_dict(settings), resume=run.exists())
    return [(tokens, math.log(perplexity)) for tokens, perplexity in summary.curve]


def study_seed(options: argparse.Namespace, texts: Path, new: Path, seed: int) -> dict[str, Any]:
    """Curves of all methods, and what `auto` found, for one seed."""
    folder, study = options.out / f"seed-{seed}", SIZES[options.size]
    for side, text in LANGUAGES.items():
        if not (folder / side).exists():
            run = folder / f"run-{side}"
            train(
                new / side,
                run,
                (new / f"corpus-{text}", None),
                study,
                init="random",
                steps=getattr(study, side).steps,
                learning_rate=study.learning_rate,
                seed=seed,
            )
            convert_checkpoint(run, folder / side, "hf")
    curves, manifests = {}, {}
    for method in options.methods:
        result = folder / "curves" / f"{method}.json"
        if not result.exists():
            start = folder / "starts" / ("clp" if method == "scratch" else method)
            if not start.exists():
                transfer_model(
                    folder / "source", folder / "helper", start, **arguments_of(method, texts, seed)
                )
            curve = train(
                start,
                folder / "runs" / method,
                (new / "corpus-target", new / "corpus-heldout"),
                study,
                init="random" if method == "scratch" else "pretrained",
                steps=options.steps,
                learning_rate=study.learning_rate / 2,
                seed=seed,
            )
            result.parent.mkdir(exist_ok=True)
            write_json(result, curve)
        curves[method] = read_json(result, list)
        if method == "auto":
            manifests = read_json(folder / "starts" / "auto" / "transfer.json")
    return {"curves": curves, "auto": manifests}


def arguments_of(method: str, texts: Path, seed: int) -> dict[str, Any]:
    """What `clp_jax.transfer_model` needs for a method."""
    method, *values = method.split(":")
    named: dict[str, Any] = {"method": "clp" if method == "scratch" else method, "seed": seed}
    named |= dict(zip(("source_weight", "match_spread"), values, strict=False))
    if method in ("auto", "focus"):
        named["data"] = [str(texts / "target.jsonl")]
    if method == "wechsel":
        named |= {
            "source_vectors": str(texts / "source.npy"),
            "target_vectors": str(texts / "target.npy"),
            "dictionary": str(texts / "dictionary.txt"),
        }
    return named


def report(found: dict[int, dict[str, Any]]) -> str:
    """Mean and standard deviation over the seeds, the lowest last loss first."""
    methods = list(next(iter(found.values()))["curves"])

    def cell(values: list[float]) -> str:
        spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
        return f"{mean(values):.2f}{spread}"

    def row(method: str) -> list[str]:
        curves = [seed["curves"][method] for seed in found.values()]
        points = [0, len(curves[0]) // 2, -1]
        cells = [cell([curve[point][1] for curve in curves]) for point in points]
        shares = []
        for seed in found.values() if "scratch" in methods else ():
            scratch = seed["curves"]["scratch"]
            reached = tokens_to_reach(seed["curves"][method], scratch[-1][1])
            shares.append(math.inf if reached is None else reached / scratch[-1][0])
        return [method, *cells, f"{mean(shares):.0%}" if shares and max(shares) < math.inf else ""]

    curve = next(iter(found.values()))["curves"][methods[0]]
    heads = ("method", *(f"loss at {curve[i][0]:,}" for i in (0, len(curve) // 2, -1)))
    rows = sorted(map(row, methods), key=lambda row: float(row[3].split()[0]))
    return markdown_table((*heads, "tokens to scratch's last loss"), rows)


def main() -> None:
    options = arguments()
    use_compilation_cache()
    texts, new = options.out / "text", options.out / "new"
    write_texts(options, texts)
    write_new_models(options, texts, new)
    found = {}
    for seed in options.seeds:
        found[seed] = study_seed(options, texts, new, seed)
        table = report(found)
        print(f"seeds {', '.join(map(str, found))}\n{table}\n", flush=True)
        (options.out / "table.md").write_text(table + "\n", "utf-8")
        write_json(options.out / "study.json", found)
    curves = found[options.seeds[0]]["curves"]
    plot_perplexity(
        {
            name: [(tokens, math.exp(loss)) for tokens, loss in curves[name]]
            for name in PLOTTED
            if name in curves
        },
        options.out / "methods.png",
        f"Held-out perplexity by initialisation, {options.size} models",
    )


if __name__ == "__main__":
    main()
