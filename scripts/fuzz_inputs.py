#!/usr/bin/env python3
"""Try damaged and odd inputs, from the shell and from Python, and count how each ends.

    scripts/fuzz_inputs.py --cases 1400 --out fuzz.json
    scripts/fuzz_inputs.py --first 17 --cases 1 --keep        # one case again, its folder kept

A case is a number. It decides which input is damaged (a model's configuration, tokenizer or
weights, a run, a corpus, text, vectors, YAML, a flag, an argument in Python, a place), how, and
which stage gets it. Each runs in a forked process of its own, with bounds on time and memory. It
should end in success or in one sentence, exit status 1 and nothing left behind; what cannot mean
anything must not succeed, what a chain's plan promises must come, and no input may change.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers
import yaml
from safetensors.numpy import load_file, save_file
from tokenizers import ByteLevelBPETokenizer

import clp_jax
from clp_jax.cli import main as run_stage

SENTENCES = ["Die Katze schläft auf dem Dach.", "The cat sleeps on the roof.", "語 ü 🙂 и так"] * 20
ENDINGS = (
    "fine", "one sentence", "traceback", "silent acceptance", "found late", "control characters",
    "leftover", "input changed", "over memory", "no end", "killed",
)  # fmt: skip
NESTED = 200_000
HUGE = "@@huge@@"  # Becomes a number of 5,000 digits, which `json.dumps` refuses to write.

# Values that a stranger may write anywhere in JSON or YAML.
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 10**9, 2**31 - 1, 2**31, 2**63, 10**30, HUGE, -0.0, 0.5, -1.5,
    1e-300, 1e300, float("nan"), float("inf"), float("-inf"), "", " ", "0", "50257", "1e-05", "no",
    "é\u202e\x1b[31m", "../x", "/dev/zero", "a\nb", "$(touch fuzzed)", [], [None], [[]], [1, 2],
    ["a"], {}, {"a": 1}, {"": {}},
)  # fmt: skip
WORDS = (
    "", " ", "-1", "0", "1", "2147483648", "1e400", "nan", "inf", "-inf", "0.5", "1_000", "no",
    "null", "[", "{a: 1", "@home", "%x", "\t", "2024-99-99", "12:00:00", "20241126", "é\x1b[31m",
    "../x", "/dev/zero", "/dev/null", ".", "~", "gs://bucket/x", "a b", "$(touch fuzzed)", "a\nb",
    "9" * 5000, "[" * 20_000, "auto", "*", "**", "float8", "\udcff",
)  # fmt: skip


@dataclass
class Case:
    """A call and what may come of it."""

    number: int
    what: str
    arguments: list[str]
    """Of the command line; of a call in Python its name, for people."""
    run: Callable[[], Any]
    out: Path | None
    must_fail: bool = False


@dataclass(frozen=True)
class Ending:
    """How a case ended, and the last of what it said."""

    case: int
    what: str
    command: str
    ending: str
    said: str


def make_models(folder: Path) -> None:
    """Two models with their tokenizer, and text, all tiny and all good."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(SENTENCES, vocab_size=300, special_tokens=["<|endoftext|>"])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 0, "vocab_size": 300, "n_layer": 2, "n_head": 2}
    for name, config in (
        ("gpt2", transformers.GPT2Config(n_embd=16, n_positions=32, **ends)),
        ("bloom", transformers.BloomConfig(hidden_size=16, **ends)),
    ):
        model = transformers.AutoModelForCausalLM.from_config(config)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    (folder / "text.txt").write_text("\n".join(SENTENCES), "utf-8")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in SENTENCES)
    (folder / "text.jsonl").write_text(lines, "utf-8")


def make_material(folder: Path) -> None:
    """The same, recipes, a corpus and a run."""
    make_models(folder)
    recipe = {
        "model": {"path": str(folder / "gpt2")},
        "data": {"train": str(folder / "corpus"), "sequence_length": 16},
        "train": {
            "out": str(folder / "run"), "steps": 2, "batch_size": 2, "dtype": "float32",
            "remat": "none", "loss_chunk": 16, "checkpoint_every": 2, "log_every": 1,
        },
    }  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(recipe))
    prepare = {"corpus": {"max_broken": 0}, "execution": {"workers": 1}, "clean": {"min_words": 1}}
    (folder / "prepare.yaml").write_text(yaml.safe_dump(prepare))
    text, corpus = str(folder / "text.jsonl"), str(folder / "corpus")
    flags = ["--tokenizer", str(folder / "gpt2"), "--execution.workers", "1"]
    run_stage(["prepare", "--input", text, "--out", corpus, *flags])
    run_stage(["train", "--config", str(folder / "run.yaml")])


def draw(number: int, material: Path, scratch: Path, kinds: Callable[[str], bool]) -> Case:
    """The case of a number; its inputs are below ``scratch``, the only good ones below material."""
    rng = random.Random(number)
    chosen = [(name, weight) for name, weight, _ in TARGETS if kinds(name)]
    names, weights = zip(*chosen, strict=True)
    target = rng.choices(names, weights)[0]
    make = next(make for name, _, make in TARGETS if name == target)
    what, call, must_fail = make(rng, material, scratch)
    if isinstance(call, partial):
        given = ", ".join(f"{key}={value!r:.60}" for key, value in call.keywords.items())
        arguments, run = [f"{call.func.__name__}({given})"], call
    else:
        arguments, run = call, partial(run_stage, call)
    return Case(number, f"{target}: {what}", arguments, run, scratch / "out", must_fail)


def use_model(rng: random.Random, model: Path, material: Path, scratch: Path) -> list[str]:
    """A stage that reads a model."""
    good, out, text = str(material / "bloom"), str(scratch / "out"), str(material / "text.txt")
    bad = str(model)
    stages = (
        (6, ["convert", bad, out, "--to", "hf"]),
        (2, ["convert", bad, out, "--to", "orbax"]),
        (3, ["transfer", "--source", bad, "--helper", good, "--out", out, "--method", "mean"]),
        (3, ["transfer", "--source", good, "--helper", bad, "--out", out, "--method", "clp"]),
        (2, ["vocab", "--source", bad, "--target", good]),
        (2, ["generate", "--model", bad, "--prompt", "Die Katze", "--max-new-tokens", "2"]),
        (1, ["evaluate", "perplexity", "--model", bad, "--data", text, "--sequence-length", "16"]),
        (1, ["prepare", "--input", text, "--tokenizer", bad, "--out", out]),
        (1, ["train", "--config", str(material / "run.yaml"), "--model.path", bad,
             "--train.out", out]),
    )  # fmt: skip
    return rng.choices([call for _, call in stages], [weight for weight, _ in stages])[0]


def copied(rng: random.Random, material: Path, scratch: Path) -> Path:
    """A model of one of the two architectures, to be damaged."""
    return shutil.copytree(material / rng.choice(["gpt2", "bloom"]), scratch / "model")


def damage_json(rng: random.Random, file: Path) -> str:
    """Put an odd value somewhere into a JSON file, take a key out, or put one in."""
    value = json.loads(file.read_text("utf-8"))
    places = list(_places(value))
    if not places:
        file.write_text(rng.choice(["[]", "null", "{"]))
        return "replaced"
    container, key = rng.choice(places)
    kind = rng.choices(["odd", "out", "in"], [8, 1, 1])[0]
    odd = rng.choice(ODD)
    if kind == "out":
        del container[key]
    elif kind == "in" and isinstance(container, dict):
        container[rng.choice(["auto_map", "num_labels", "quantization_config", "é\x1b"])] = odd
    else:
        container[key] = odd
    text = json.dumps(value, ensure_ascii=True).replace(json.dumps(HUGE), "9" * 5000)
    file.write_text(text, "utf-8")
    return f"{file.name}: {key} {kind} {str(odd)[:30]!r}"


def _places(value: Any, limit: int = 200) -> Iterator[tuple[Any, Any]]:
    """Containers and keys, those of long lists and dictionaries only in part."""
    items = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))
        if isinstance(value, list)
        else []
    )
    for key, inner in items[:limit]:
        yield value, key
        yield from _places(inner, limit=5)


def damage_file(rng: random.Random, file: Path) -> tuple[str, bool]:
    """Damage the bytes of a file, or put something else in its place; whether that must fail."""
    data = file.read_bytes()
    kind = rng.choice(
        ["empty", "cut", "flip", "noise", "zeros", "list", "null", "nested", "digits", "utf-16",
         "mark", "pipe", "device", "folder", "outside", "dangling", "gone", "double"]
    )  # fmt: skip
    place = rng.randrange(max(1, len(data)))
    contents = {
        "empty": b"",
        "cut": data[:place],
        "flip": data[:place] + bytes([data[place] ^ 255 if data else 1]) + data[place + 1 :],
        "noise": rng.randbytes(len(data)),
        "zeros": bytes(len(data)),
        "list": b"[]",
        "null": b"null",
        "nested": b"[" * NESTED,
        "digits": b"9" * 5000,
        "utf-16": data.decode("utf-8", "replace").encode("utf-16"),
        "mark": b"\xef\xbb\xbf" + data,
        "double": data + data,
    }
    file.unlink()
    if kind in contents:
        file.write_bytes(contents[kind])
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "folder":
        file.mkdir()
    elif kind == "outside":
        (file.parent.parent / "elsewhere").write_bytes(data)
        file.symlink_to(file.parent.parent / "elsewhere")
    elif kind == "dangling":
        file.symlink_to("nowhere")
    return f"{file.name} {kind}", kind in ("pipe", "device", "outside")


def some_file(rng: random.Random, folder: Path) -> Path:
    """One of the files of a folder at any depth."""
    return rng.choice(sorted(file for file in folder.rglob("*") if file.is_file()))


def config(rng: random.Random, material: Path, scratch: Path) -> tuple[str, list[str], bool]:
    """A configuration with a value that is odd."""
    model = copied(rng, material, scratch)
    what = damage_json(rng, model / "config.json")
    return what, use_model(rng, model, material, scratch), False


def tokenizer(rng: random.Random, material: Path, scratch: Path) -> tuple[str, list[str], bool]:
    """A tokenizer with a value that is odd, or one of its settings, or those of `generate`."""
    model = copied(rng, material, scratch)
    file = rng.choice(["tokenizer.json"] * 3 + ["tokenizer_config.json", "generation_config.json"])
    return damage_json(rng, model / file), use_model(rng, model, material, scratch), False


def bytes_of_a_model(
    rng: random.Random, material: Path, scratch: Path
) -> tuple[str, list[str], bool]:
    """A file of a model damaged, or something else in its place."""
    model = copied(rng, material, scratch)
    what, must_fail = damage_file(rng, some_file(rng, model))
    call = use_model(rng, model, material, scratch)
    return what, call, must_fail and call[0] not in ("prepare", "vocab")


def weights(rng: random.Random, material: Path, scratch: Path) -> tuple[str, list[str], bool]:
    """Tensors that are none, or not these; all refused by whoever reads weights."""
    model = copied(rng, material, scratch)
    file = model / "model.safetensors"
    tensors = load_file(file)
    name = rng.choice(sorted(tensors))
    tensor, place = tensors[name].copy(), rng.randrange(tensors[name].size)
    kind = rng.choice(
        ["nan", "inf", "int8", "bool", "float64", "transposed", "row less", "renamed", "more",
         "twice", "gone", "head", "bin list", "bin gradients", "bin quantised", "bin meta",
         "bin complex", "bin float8", "index out", "index absolute", "index list", "large"]
    )  # fmt: skip
    harmless = {"float64", "bin gradients"}
    if kind in ("nan", "inf", "large"):
        tensor.reshape(-1)[place] = {"nan": np.nan, "inf": -np.inf, "large": 1e30}[kind]
        harmless = harmless | {"large"}
    elif kind in ("int8", "bool", "float64"):
        tensor = tensor.astype(kind)
    elif kind == "transposed":
        tensor = np.ascontiguousarray(tensor.T)
        harmless = harmless | ({kind} if tensor.shape == tensors[name].shape else set())
    elif kind == "row less":
        tensor = tensor[1:]
    tensors[name] = tensor
    if kind == "renamed":
        tensors["x" + name] = tensors.pop(name)
    elif kind == "more":
        tensors["transformer.h.0.adapter\x1b[31m"] = tensor
    elif kind == "twice":
        tensors[name.removeprefix("transformer.")] = tensor * 0
    elif kind == "gone":
        del tensors[name]
    elif kind == "head":
        tensors["lm_head.weight"] = rng.choice([np.zeros((300, 16), np.float32), tensor])
    save_file(tensors, file)
    if kind.startswith("bin"):
        _as_bin(kind, model, tensors, name)
    elif kind.startswith("index"):
        file.rename(model.parent / "elsewhere.safetensors")
        place_of = {"out": "../elsewhere.safetensors", "list": ["x"]}.get(
            kind.removeprefix("index "), str(model.parent / "elsewhere.safetensors")
        )
        index = {"weight_map": dict.fromkeys(tensors, place_of)}
        (model / "model.safetensors.index.json").write_text(json.dumps(index))
    call = use_model(rng, model, material, scratch)
    body = "--helper" in call and call[call.index("--helper") + 1] == str(model)
    reads = call[0] in ("convert", "generate", "evaluate", "train", "transfer") and not body
    return f"{kind} {name}", call, reads and kind not in harmless


def _as_bin(kind: str, model: Path, tensors: dict[str, np.ndarray], name: str) -> None:
    state: Any = {key: torch.from_numpy(value) for key, value in tensors.items()}
    changes: dict[str, Callable[[Any], Any]] = {
        "bin gradients": torch.nn.Parameter,
        "bin list": lambda tensor: [tensor],
        "bin quantised": lambda tensor: torch.quantize_per_tensor(tensor, 1.0, 0, torch.qint8),
        "bin meta": lambda tensor: tensor.to("meta"),
        "bin complex": lambda tensor: tensor.to(torch.complex64),
        "bin float8": lambda tensor: tensor.to(torch.float8_e4m3fn),
    }
    state[name] = changes[kind](state[name])
    torch.save(state, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()


def run(rng: random.Random, material: Path, scratch: Path) -> tuple[str, list[str], bool]:
    """A run's folder with something damaged."""
    folder = shutil.copytree(material / "run", scratch / "run")
    if rng.random() < 0.5:
        files = [file for file in folder.rglob("*.json") if "checkpoints" not in file.parts]
        what = damage_json(rng, rng.choice(sorted(files)))
    else:
        what, _ = damage_file(rng, some_file(rng, folder))
    calls = (
        ["runs", str(scratch)],
        ["runs", str(scratch), "--json", str(scratch / "runs.json")],
        ["convert", str(folder), str(scratch / "out"), "--to", "hf"],
        ["generate", "--model", str(folder), "--prompt", "a", "--max-new-tokens", "2"],
        ["train", "--config", str(material / "run.yaml"), "--train.out", str(folder), "--resume"],
    )
    return what, rng.choices(calls, [4, 1, 3, 1, 1])[0], False


def corpus(rng: random.Random, material: Path, scratch: Path) -> tuple[str, list[str], bool]:
    """A corpus with something damaged."""
    folder = shutil.copytree(material / "corpus", scratch / "corpus")
    if rng.random() < 0.6:
        what = damage_json(rng, folder / "manifest.json")
    else:
        what, _ = damage_file(rng, some_file(rng, folder))
    recipe, out = str(material / "run.yaml"), str(scratch / "out")
    flags = ["--data.train", str(folder), "--train.out", out]
    return what, ["train", "--config", recipe, *flags], False


def text(rng: random.Random, material: Path, scratch: Path) -> tuple[str, list[str], bool]:
    """Text that is damaged, in a file of one of the formats."""
    name = rng.choice(["text.txt", "text.jsonl"])
    file = scratch / "in" / f"{name}{rng.choice(['', '', '', '.gz', '.zst', '.xz', '.parquet'])}"
    file.parent.mkdir()
    shutil.copy(material / name, file)
    what, must_fail = damage_file(rng, file)
    out, model = str(scratch / "out"), str(material / "gpt2")
    calls = (
        ["prepare", "--input", str(file), "--tokenizer", model, "--out", out,
         "--execution.workers", "1"],
        ["tokenizer", "train", "--input", str(file), "--out", out, "--vocab-size", "280"],
        ["evaluate", "perplexity", "--model", model, "--data", str(file)],
        ["vocab", "--source", model, "--target", model, "--data", str(file)],
    )  # fmt: skip
    return what, rng.choices(calls, [3, 3, 1, 2])[0], must_fail and "outside" not in what


def recipe(rng: random.Random, material: Path, scratch: Path) -> tuple[str, list[str], bool]:
    """YAML with an odd value, or whose bytes are damaged."""
    name = rng.choice(["run.yaml", "prepare.yaml"])
    file = scratch / "in" / name
    file.parent.mkdir()
    if rng.random() < 0.7:
        values = yaml.safe_load((material / name).read_text())
        container, key = rng.choice(list(_places(values)))
        odd = rng.choice([odd for odd in ODD if odd is not HUGE])
        container[key], what = odd, f"{key} {str(odd)[:30]!r}"
        file.write_text(yaml.safe_dump(values, allow_unicode=True), "utf-8")
    else:
        shutil.copy(material / name, file)
        what, _ = damage_file(rng, file)
    out = str(scratch / "out")
    text = ["--input", str(material / "text.jsonl"), "--execution.workers", "1"]
    if name == "run.yaml":
        return what, ["train", "--config", str(file), "--train.out", out], False
    return what, ["prepare", "--config", str(file), "--out", out, *text], False


FLAGS = {
    "train": [
        "model.path", "model.init", "model.dropout", "data.train", "data.validation",
        "data.sequence_length", "mesh.data", "mesh.fsdp", "optimizer.name", "optimizer.rates",
        "optimizer.learning_rate", "optimizer.warmup_steps", "optimizer.weight_decay",
        "optimizer.beta1", "optimizer.epsilon", "optimizer.clip_norm", "train.steps",
        "train.batch_size", "train.accumulation", "train.dtype", "train.remat", "train.loss_chunk",
        "train.z_loss", "train.seed", "train.checkpoint_every", "train.max_skipped",
    ],
    "prepare": [
        "input", "tokenizer", "text-field", "limit", "clean.language", "clean.min_words",
        "clean.max_characters", "deduplicate.lines", "deduplicate.substrings", "corpus.heldout",
        "corpus.max_broken", "execution.workers", "execution.executor", "execution.time",
        "decontaminate.ngram", "decontaminate.against",
    ],
    "transfer": [
        "source", "helper", "method", "data", "copy-share", "pad-to-multiple-of", "token-vectors",
        "seed", "dtype", "mesh", "dictionary", "text-field",
    ],
    "generate": ["model", "prompt", "max-new-tokens", "temperature", "seed", "mesh"],
    "evaluate perplexity": ["model", "data", "sequence-length", "batch-size", "mesh", "json"],
    "tokenizer train": ["input", "vocab-size", "text-field"],
    "convert": ["to", "dtype", "mesh"],
}  # fmt: skip


def flag(rng: random.Random, material: Path, scratch: Path) -> tuple[str, list[str], bool]:
    """A flag with an odd value."""
    out, gpt2, bloom = str(scratch / "out"), str(material / "gpt2"), str(material / "bloom")
    lines, recipe = str(material / "text.jsonl"), str(material / "run.yaml")
    stages = {
        "train": ["--config", recipe, "--train.out", out],
        "prepare": ["--input", lines, "--out", out, "--tokenizer", gpt2,
                    "--execution.workers", "1"],
        "transfer": ["--source", gpt2, "--helper", bloom, "--out", out, "--method", "mean"],
        "generate": ["--model", gpt2, "--prompt", "Die", "--max-new-tokens", "2"],
        "evaluate perplexity": ["--model", gpt2, "--data", lines, "--sequence-length", "16"],
        "tokenizer train": ["--input", lines, "--out", out, "--vocab-size", "280"],
        "convert": [gpt2, out, "--to", "hf"],
    }  # fmt: skip
    stage = rng.choice(sorted(stages))
    key, word = rng.choice(FLAGS[stage]), rng.choice(WORDS)
    call = [*stage.split(), *stages[stage], f"--{key}", word]
    return f"{stage} --{key} {word[:30]!r}", call, False


Maker = Callable[[random.Random, Path, Path], tuple[str, list[str], bool]]
TARGETS: tuple[tuple[str, int, Maker], ...] = (
    ("config", 5, config),
    ("tokenizer", 4, tokenizer),
    ("bytes", 4, bytes_of_a_model),
    ("weights", 4, weights),
    ("run", 3, run),
    ("corpus", 2, corpus),
    ("text", 3, text),
    ("recipe", 3, recipe),
    ("flag", 5, flag),
)


def call(arguments: list[str], output: TextIO) -> int:
    """Call the command line in this process: its exit status, or 70 for an exception."""
    with redirect_stdout(output), redirect_stderr(output):
        try:
            run_stage(arguments)
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=output)
                return 1
            return end.code or 0
        except BaseException:
            output.write(traceback.format_exc())
            return 70
    return 0


def judge(case: Case, status: int, said: str) -> Ending:
    """What kind of ending that is."""
    kept = {"train", "prepare"}  # They can go on; what they leave is theirs to judge.
    left = case.out and case.out.exists() and case.arguments[0] not in kept
    if "MemoryError" in said or "out of memory" in said.lower():
        ending = "over memory"
    elif "Traceback (most recent" in said or "panicked" in said or status == 70:
        ending = "traceback"
    elif status < 0:
        ending = "killed"
    elif status == 0:
        ending = "silent acceptance" if case.must_fail else "fine"
    else:
        parts = [*case.out.parent.glob(".*.partial*")] if case.out else []
        ending = "leftover" if left or parts else "one sentence"
    lines = [line for line in said.splitlines() if line.strip()]
    said = " | ".join(lines[-3:])[-600:]
    return Ending(case.number, case.what, " ".join(case.arguments)[:400], ending, said)


def bounded(case: Case, scratch: Path, seconds: int, memory: int) -> Ending:
    """The case in a forked process, ended when it takes too long or too much."""
    log = scratch / "said"
    child = os.fork()
    if not child:
        os.setsid()
        os.chdir(scratch)
        stream = log.open("w", encoding="utf-8", errors="backslashreplace")
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
        status = call(case.arguments, stream)
        stream.flush()
        os._exit(status if 0 <= status < 128 else 1)
    end, status, why = time.monotonic() + seconds, None, ""
    while status is None:
        done, code = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(code)
        elif time.monotonic() > end or _resident(child) > memory:
            why = "no end" if time.monotonic() > end else "over memory"
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            status = -signal.SIGKILL
        else:
            time.sleep(0.05)
    ending = judge(case, status, log.read_text("utf-8", "replace") if log.exists() else "")
    return Ending(**{**asdict(ending), "ending": why or ending.ending})


def _resident(process: int) -> int:
    with suppress(OSError, IndexError):
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    return 0


def main() -> None:
    """Run the cases and tell how they ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1400)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", default="", help="targets, with commas between them")
    parser.add_argument("--seconds", type=int, default=120, help="most time of a case")
    parser.add_argument("--memory", type=float, default=4.0, help="most memory of a case, GiB")
    parser.add_argument("--out", type=Path, help="write all endings there, as JSON")
    parser.add_argument("--material", type=Path, help="folder with the good inputs, made if absent")
    parser.add_argument("--keep", action="store_true", help="keep the folders of the cases")
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    place = Path(tempfile.mkdtemp(prefix="fuzz-"))
    material = options.material or place / "material"
    if not material.exists():
        material.mkdir(parents=True)
        if not (maker := os.fork()):  # JAX starts threads, and what has threads is not forked.
            make_material(material)
            os._exit(0)
        if os.waitpid(maker, 0)[1]:
            sys.exit("The good inputs could not be made.")
    torch.set_num_threads(1)
    for name in clp_jax.__all__:  # Imported once, and not by every case.
        getattr(clp_jax, name)
    endings: list[Ending] = []
    for number in range(options.first, options.first + options.cases):
        scratch = place / str(number)
        scratch.mkdir()
        case = draw(number, material, scratch, lambda name: not only or name in only)
        endings.append(bounded(case, scratch, options.seconds, int(options.memory * 2**30)))
        if endings[-1].ending not in ("fine", "one sentence"):
            print(json.dumps(asdict(endings[-1]), ensure_ascii=False), flush=True)
        if not options.keep:
            shutil.rmtree(scratch, ignore_errors=True)
        if options.out:
            options.out.write_text(json.dumps([asdict(end) for end in endings], indent=1))
    counts = Counter(ending.ending for ending in endings)
    print(", ".join(f"{counts[name]} {name}" for name in ENDINGS if counts[name]))
    if not options.keep:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
