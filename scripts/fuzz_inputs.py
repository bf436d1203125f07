#!/usr/bin/env python3
"""Try damaged and odd inputs, from the shell and from Python, and count how each ends.

    scripts/fuzz_inputs.py --cases 1400 --out fuzz.json
    scripts/fuzz_inputs.py --first 17 --cases 1 --keep        # one case again, its folder kept

A case is a number. It decides which input is damaged (a model's configuration, tokenizer, template
or weights, a teacher, a run, a chain, a corpus, text, vectors, a task, YAML, a flag, an argument in
Python, a place), how, and which stage gets it. Each runs in a forked process of its own, with
bounds on time and memory. It should end in success or in one sentence, exit status 1 and nothing
left behind; what cannot mean anything must not succeed, what a chain's plan promises must come,
logits must be PyTorch's, and no input may change.
"""

import argparse
import json
import os
import random
import re
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
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO
from unittest.mock import patch

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax.numpy as jnp
import numpy as np
import torch
import transformers
import yaml
from flax import nnx
from safetensors.numpy import load_file, save_file
from tokenizers import ByteLevelBPETokenizer

import clp_jax
from clp_jax import ChainConfig, PrepareConfig, RunConfig, UserError
from clp_jax.cli import main as run_stage
from clp_jax.data.finish import Finish
from clp_jax.terminal import printable

LABELS = ("OTHER", "OFFENSE")
SENTENCES = ["Die Katze schläft auf dem Dach.", "The cat sleeps on the roof.", "語 ü 🙂 и так"] * 20
ENDINGS = (
    "fine", "one sentence", "traceback", "silent acceptance", "found late", "other numbers",
    "control characters", "leftover", "input changed", "over memory", "no end", "killed",
)  # fmt: skip
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
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


Call = list[str] | partial[Any]
"""The arguments of the command line, or a call in Python."""
Made = tuple[str, Call, bool]
"""What is damaged, what gets it, and whether that must fail."""


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


LOCAL, GLOBAL = "sliding_attention", "full_attention"
ROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 100.0}
MODERN = {
    "vocab_size": 300, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None, "tie_word_embeddings": True,
    "initializer_range": 0.3, "rope_parameters": ROPE,
}  # fmt: skip
WINDOWS = {"use_sliding_window": True, "sliding_window": 8}
BY_TURNS = {"sliding_window": 8, "layer_types": [LOCAL, GLOBAL] * 2, "query_pre_attn_scalar": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {**WINDOWS, "max_window_layers": 2},
    "qwen3": {**WINDOWS, "max_window_layers": 2, "head_dim": 6},
    "smollm3": {**WINDOWS, "no_rope_layer_interval": 2},
    "olmo2": {},
    "gemma2": {**BY_TURNS, "head_dim": 6},
    "gemma3_text": {**BY_TURNS, "head_dim": 6, "rope_parameters": {LOCAL: ROPE, GLOBAL: ROPE}},
}
"""Settings by family, in addition to those that all have."""


def make_families(folder: Path) -> None:
    """A model of each modern family, tiny and good."""
    for kind, settings in FAMILIES.items():
        config = transformers.AutoConfig.for_model(kind, **MODERN | settings)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder / kind)
        for file in (folder / "gpt2").glob("tokenizer*"):
            shutil.copy(file, folder / kind)


def make_vectors(folder: Path) -> None:
    """Vectors of words and tokens, a dictionary, and the examples of a task."""
    words = sorted(set(" ".join(SENTENCES[:2]).split()))
    table = np.random.default_rng(0).normal(size=(len(words), 4)).astype(np.float32)
    rows = [f"{word} {' '.join(map(str, row))}" for word, row in zip(words, table, strict=True)]
    (folder / "words.vec").write_text("\n".join([f"{len(rows)} 4", *rows]) + "\n", "utf-8")
    np.save(folder / "words.npy", table)
    (folder / "words.txt").write_text("\n".join(words) + "\n", "utf-8")
    np.save(folder / "tokens.npy", np.ones((300, 4), np.float32))
    (folder / "pairs.txt").write_text("cat Katze\nThe Die\n", "utf-8")
    (folder / "tasks/germeval2018").mkdir(parents=True)
    examples = [{"text": text, "label": label} for text in SENTENCES[:2] for label in LABELS]
    lines = "".join(json.dumps(example) + "\n" for example in examples)
    (folder / "tasks/germeval2018/test.jsonl").write_text(lines, "utf-8")


TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


def make_descendants(folder: Path) -> None:
    """What a transfer writes, a model with a template of conversations, and a task of one's own."""
    started = shutil.copytree(folder / "gpt2", folder / "started")
    origins = {"copied": np.arange(200), "combined": np.arange(200, 300)}
    np.savez(started / "transfer_origins.npz", **origins)
    exported = shutil.copytree(folder / "gpt2", folder / "exported")
    (exported / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "own").mkdir()
    shutil.copy(folder / "tasks/germeval2018/test.jsonl", folder / "own/test.jsonl")
    task = {
        "task": "own", "output_type": "multiple_choice", "dataset_path": "json",
        "test_split": "test",
        "dataset_kwargs": {"data_files": {"test": str(folder / "own/test.jsonl")}},
        "doc_to_text": "{{text}}\nAnswer:", "doc_to_choice": list(LABELS), "doc_to_target": "label",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }  # fmt: skip
    (folder / "own/own.yaml").write_text(yaml.safe_dump(task, sort_keys=False))


def make_material(folder: Path) -> None:
    """The same, recipes, a corpus that is begun and one that is done, a run and a chain."""
    make_models(folder)
    make_families(folder)
    make_vectors(folder)
    make_descendants(folder)
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
    small = {
        key: recipe["train"][key] for key in ("steps", "batch_size", "dtype", "checkpoint_every")
    }
    models = [{"name": "small", "source": str(folder / "bloom"), "train": small}]
    chain = {
        "helper": str(folder / "gpt2"), "out": str(folder / "chain"), "data": recipe["data"],
        "transfer": {"method": "mean", "data": [str(folder / "text.jsonl")]}, "models": models,
    }  # fmt: skip
    (folder / "chain.yaml").write_text(yaml.safe_dump(chain))
    polish = {
        **recipe,
        "model": {"path": str(folder / "started")},
        "teacher": {"path": str(folder / "gpt2"), "sequence_length": 32, "likelihoods": 0.5},
        "optimizer": {
            "lr_multipliers": dict.fromkeys(("positions", "layers", "final_norm"), 0),
            "new_rows_only": True,
        },
    }  # fmt: skip
    (folder / "polish.yaml").write_text(yaml.safe_dump(polish))
    call(partial(run_stage, prepare_text(folder, folder / "corpus")))
    with patch.object(Finish, "run", side_effect=KeyboardInterrupt):
        call(partial(run_stage, prepare_text(folder, folder / "begun")))
    call(partial(run_stage, ["train", "--config", str(folder / "run.yaml")]))
    call(partial(run_stage, ["chain", "--config", str(folder / "chain.yaml")]))
    evaluate = ["evaluate", "--model", str(folder / "gpt2"), "--json"]
    for kind, name, flags in (
        ("perplexity", "perplexity", ["--data", str(folder / "text.txt")]),
        ("tasks", "scores", ["--tasks", "germeval2018", "--task-data", str(folder / "tasks")]),
    ):
        file = str(folder / f"{name}.json")
        call(partial(run_stage, [evaluate[0], kind, *evaluate[1:], file, *flags]))


def prepare_text(material: Path, out: Path) -> list[str]:
    """The stage that makes the corpus."""
    text, tokenizer = str(material / "text.jsonl"), str(material / "gpt2")
    flags = ["--tokenizer", tokenizer, "--execution.workers", "1", "--deduplicate.exact", "true"]
    return ["prepare", "--input", text, "--out", str(out), *flags]


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
        (2, ["convert", bad, out, "--to", "gguf"]),
        (2, ["graft", "--model", good, "--base", good, "--instruct", bad, "--out", out]),
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


def config(rng: random.Random, material: Path, scratch: Path) -> Made:
    """A configuration with a value that is odd."""
    model = copied(rng, material, scratch)
    what = damage_json(rng, model / "config.json")
    return what, use_model(rng, model, material, scratch), False


LONGER = {**ROPE, "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16}
LLAMA3 = {**LONGER, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ROPES: tuple[Any, ...] = (
    LLAMA3, LONGER, {**ROPE, "rope_type": "linear", "factor": 4.0},
    {**ROPE, "rope_type": "dynamic", "factor": 2.0}, {**ROPE, "rope_type": "longrope"},
    {**LONGER, "beta_fast": 1, "beta_slow": 32}, {**LONGER, "mscale": 0.7, "mscale_all_dim": 1.0},
    {**LONGER, "truncate": False}, {LOCAL: ROPE, GLOBAL: LLAMA3}, {GLOBAL: ROPE}, {LOCAL: None},
)  # fmt: skip
# Values of each field that is read, in addition to odd ones; not all are wrong.
FIELDS: dict[str, tuple[Any, ...]] = {
    "rope_parameters": ROPES, "rope_scaling": ROPES, "rope_theta": (1e4,),
    "rope_local_base_freq": (50.0,), "partial_rotary_factor": (0.5,), "head_dim": (3, 4, 7, "4"),
    "num_key_value_heads": (1, 3, 4, 5), "num_attention_heads": (3, 8), "hidden_size": (15,),
    "num_hidden_layers": (2, 3, 5), "max_position_embeddings": (4,), "vocab_size": (299, 301),
    "layer_types": ([LOCAL] * 4, [GLOBAL] * 4, [GLOBAL, LOCAL] * 2, [GLOBAL] * 3, ["odd"] * 4),
    "sliding_window": (1, 2, 3.0, "8", 100), "use_sliding_window": ("yes",),
    "sliding_window_pattern": (2, 3), "max_window_layers": (1, 3, -3), "no_rope_layers": (
        [1] * 4, [0] * 4, [1, 0, 0, 1], [1] * 3, [1] * 6, [2] * 4, ["a"] * 4),
    "no_rope_layer_interval": (3, 7), "attn_logit_softcapping": (0.5, -30.0),
    "final_logit_softcapping": (0.5, -30.0), "query_pre_attn_scalar": (7, -4),
    "attention_bias": (), "mlp_bias": (), "hidden_act": ("gelu", "relu2"),
    "hidden_activation": ("gelu", "relu2"), "rms_norm_eps": (0.1,), "attention_dropout": (0.5,),
    "tie_word_embeddings": (), "is_causal": (), "use_bidirectional_attention": (),
    "per_layer_config": ({"0": {"head_dim": 2}},), "num_experts": (8,), "text_config": (MODERN,),
    "quantization_config": ({"quant_method": "gptq"}, {"quant_method": "fp8"}),
}  # fmt: skip


def family(rng: random.Random, material: Path, scratch: Path) -> Made:
    """A configuration of a modern family with one or two values that are odd."""
    kind = rng.choice(sorted(FAMILIES))
    model = shutil.copytree(material / kind, scratch / "model")
    file = model / "config.json"
    odd = [value for value in ODD if value is not HUGE]
    values = {
        key: rng.choice(FIELDS[key] if FIELDS[key] and rng.random() < 0.6 else odd)
        for key in rng.sample(sorted(FIELDS), rng.choice([1, 1, 2]))
    }
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | values), "utf-8")
    compared: Call = partial(same_as_pytorch, model=str(model))
    call = compared if rng.random() < 0.7 else use_model(rng, model, material, scratch)
    return f"{kind} {str(values)[:150]!r}", call, False


def same_as_pytorch(model: str) -> None:
    """Load a model, and compare its logits with those of `transformers`, if it is accepted."""
    tokens = np.arange(48).reshape(2, 24) % 7
    ours = np.asarray(nnx.jit(clp_jax.load_model(model))(jnp.asarray(tokens)))
    try:
        loaded = transformers.AutoModelForCausalLM.from_pretrained(
            model, attn_implementation="eager"
        )
        theirs = loaded.eval()(torch.from_numpy(tokens), use_cache=False).logits.detach().numpy()
        difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
    except Exception as error:
        print(f"other numbers: PyTorch ends with {type(error).__name__}: {error}")
    else:
        if not difference < 1e-4:
            print(f"other numbers: by {difference}")


def tokenizer(rng: random.Random, material: Path, scratch: Path) -> Made:
    """A tokenizer with a value that is odd, or one of its settings, or those of `generate`."""
    model = copied(rng, material, scratch)
    file = rng.choice(["tokenizer.json"] * 3 + ["tokenizer_config.json", "generation_config.json"])
    return damage_json(rng, model / file), use_model(rng, model, material, scratch), False


def bytes_of_a_model(rng: random.Random, material: Path, scratch: Path) -> Made:
    """A file of a model damaged, or something else in its place."""
    model = copied(rng, material, scratch)
    what, must_fail = damage_file(rng, some_file(rng, model))
    call = use_model(rng, model, material, scratch)
    return what, call, must_fail and call[0] not in ("prepare", "vocab")


def weights(rng: random.Random, material: Path, scratch: Path) -> Made:
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
        equal = name.endswith(("wte.weight", "word_embeddings.weight"))
        harmless = harmless | ({kind} if equal and tensors["lm_head.weight"].any() else set())
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


def run(rng: random.Random, material: Path, scratch: Path) -> Made:
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
        ["compare", str(folder), str(material / "run"), "--out", str(scratch / "out")],
    )
    return what, rng.choices(calls, [4, 1, 3, 1, 1, 2])[0], False


def result(rng: random.Random, material: Path, scratch: Path) -> Made:
    """The result of an evaluation, damaged, for the page of a model."""
    file = Path(shutil.copy(material / rng.choice(["perplexity.json", "scores.json"]), scratch))
    what = damage_json(rng, file) if rng.random() < 0.7 else damage_file(rng, file)[0]
    model, out = str(material / "gpt2"), str(scratch / "out")
    return what, ["compare", model, "--results", f"{model}={file}", "--out", out], False


def corpus(rng: random.Random, material: Path, scratch: Path) -> Made:
    """A corpus with something damaged."""
    folder = shutil.copytree(material / "corpus", scratch / "corpus")
    if rng.random() < 0.6:
        what = damage_json(rng, folder / "manifest.json")
    else:
        what, _ = damage_file(rng, some_file(rng, folder))
    recipe, out = str(material / "run.yaml"), str(scratch / "out")
    flags = ["--data.train", str(folder), "--train.out", out]
    return what, ["train", "--config", recipe, *flags], False


def text(rng: random.Random, material: Path, scratch: Path) -> Made:
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


def recipe(rng: random.Random, material: Path, scratch: Path) -> Made:
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
        "data.sequence_length", "mesh.data", "mesh.fsdp", "optimizer.name",
        "optimizer.lr_multipliers", "optimizer.learning_rate", "optimizer.warmup_steps",
        "optimizer.weight_decay", "optimizer.beta1", "optimizer.epsilon", "optimizer.clip_norm",
        "train.steps",
        "train.batch_size", "train.gradient_accumulation_steps", "train.dtype", "train.remat",
        "train.loss_chunk",
        "train.z_loss", "train.seed", "train.checkpoint_every", "train.max_skipped",
        "teacher.path", "teacher.layer", "teacher.sequence_length", "optimizer.new_rows_only",
    ],
    "prepare": [
        "input", "tokenizer", "text-field", "limit", "clean.language", "clean.min_words",
        "clean.max_characters", "deduplicate.lines", "deduplicate.substrings", "corpus.heldout",
        "corpus.max_broken", "execution.workers", "execution.executor", "execution.time",
        "decontaminate.ngram", "decontaminate.against",
    ],
    "transfer": [
        "source", "helper", "method", "data", "source-weight", "pad-to-multiple-of",
        "token-vectors", "seed", "dtype", "mesh", "dictionary", "text-field", "tokenizer",
        "rank-steps", "neighbours", "strength", "temperature",
    ],
    "generate": ["model", "prompt", "max-new-tokens", "temperature", "seed", "mesh"],
    "evaluate perplexity": [
        "model", "data", "sequence-length", "stride", "batch-size", "mesh", "json",
    ],
    "evaluate tasks": [
        "tasks", "task-data", "include-path", "num-fewshot", "limit", "batch-size", "dtype",
        "output-path", "json",
    ],
    "tokenizer train": ["input", "vocab-size", "text-field", "out"],
    "convert": ["to", "dtype", "mesh"],
    "vocab": ["source", "target", "data", "text-field", "json"],
    "new": ["tokenizer", "out", "n-layer", "n-embd", "n-head", "n-positions"],
    "plan": ["config", "accelerator-type", "source", "vocab-size", "mesh.fsdp", "json"],
    "runs": ["plot", "json"],
    "chain": ["config"],
    "compare": ["out", "results", "prompts", "max-new-tokens", "dtype", "mesh"],
}  # fmt: skip


def flag(rng: random.Random, material: Path, scratch: Path) -> Made:
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
        "evaluate tasks": ["--model", gpt2, "--tasks", "clp_germeval2018_coarse_question",
                           "--limit", "2", "--task-data", str(material / "tasks")],
        "convert": [gpt2, out, "--to", "hf"],
        "vocab": ["--source", gpt2, "--target", bloom],
        "new": ["--tokenizer", gpt2, "--out", out],
        "plan": ["--config", recipe, "--accelerator-type", "v5litepod-1"],
        "runs": [str(material)],
        "chain": ["--config", str(material / "chain.yaml"), "--dry-run"],
        "compare": [gpt2, str(material / "run"), "--out", out],
    }  # fmt: skip
    stage = rng.choice(sorted(stages))
    key, word = rng.choice(FLAGS[stage]), rng.choice(WORDS)
    call = [*stage.split(), *stages[stage], f"--{key}", word]
    return f"{stage} --{key} {word[:30]!r}", call, False


PATTERNS = (
    "(a+)+$", "(", "", "\\p{Nonsense}", "(?<=a*)b", "(?R)", "|", "(.*)*\\1", "\x00", "a" * 10_000,
)  # fmt: skip


def odd_tokenizer(rng: random.Random, material: Path, scratch: Path) -> Made:
    """A tokenizer of another make, that is odd."""
    model = copied(rng, material, scratch)
    file = model / "tokenizer.json"
    value = json.loads(file.read_text("utf-8"))
    kind = rng.choice(["added", "pre_tokenizer", "normalizer", "post", "model", "decoder", "ids"])
    pattern: Any = {rng.choice(["Regex", "String"]): rng.choice(PATTERNS)}
    content = rng.choice(["", " ", "e", "\ud83d", "x" * 100_000, "a\x1b[31m", "<s>"])
    if kind == "added":
        number = rng.choice([0, 299, 300, 310, 70_000, -1, 2**31 - 1, 2**32, 1.5, None])
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        value["added_tokens"].append({"id": number, "content": content, **flags})
    elif kind == "pre_tokenizer":
        behaviour = rng.choice(["Removed", "Isolated", "MergedWithNext", "Odd"])
        split = {"type": "Split", "pattern": pattern, "behavior": behaviour, "invert": False}
        value[kind] = rng.choice([split, None, {"type": "Sequence", "pretokenizers": [split] * 50}])
    elif kind in ("normalizer", "decoder"):
        steps = [
            {"type": "Replace", "pattern": pattern, "content": content},
            {"type": "Prepend", "prepend": content},
            {"type": "Strip", "strip_left": True, "strip_right": True},
            {"type": "Strip", "content": content[:1], "start": 10**6, "stop": 1},
            {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
            None,
        ]
        value[kind] = rng.choice(steps)
    elif kind == "post":
        single = [{"SpecialToken": {"id": content, "type_id": 0}}, {"Sequence": {"id": "A"}}]
        named = {content: {"id": content, "ids": [rng.choice([0, 10**6, -1])], "tokens": [content]}}
        value["post_processor"] = {
            "type": "TemplateProcessing", "single": single[: rng.choice([0, 1, 2])],
            "pair": [], "special_tokens": rng.choice([named, {}]),
        }  # fmt: skip
    elif kind == "model":
        vocabulary = value["model"]["vocab"]
        value["model"] = rng.choice(
            [
                {"type": "WordLevel", "vocab": vocabulary, "unk_token": content},
                {
                    "type": "WordPiece",
                    "vocab": vocabulary,
                    "unk_token": "a",
                    "continuing_subword_prefix": content,
                    "max_input_chars_per_word": 0,
                },
                {"type": "Unigram", "vocab": [[name, -1.0] for name in vocabulary], "unk_id": 500},
                {"type": "Unigram", "vocab": [["a", 1e300], ["b", -1e300]] * 150, "unk_id": 0},
                {"type": "BPE", "vocab": vocabulary, "merges": [["a", content]]},
                {"type": "BPE", "vocab": {}, "merges": []},
                {"type": "Odd"},
            ]
        )
    else:
        names = sorted(value["model"]["vocab"])
        chosen = rng.sample(names, rng.choice([1, 50]))
        value["model"]["vocab"] |= dict.fromkeys(chosen, rng.choice([0, 7, 350, 10**5, 2**31, -1]))
    file.write_text(json.dumps(value), "utf-8")
    return (
        f"{kind} {pattern} {content[:10]!r}"[:80],
        use_model(rng, model, material, scratch),
        False,
    )


def vectors(rng: random.Random, material: Path, scratch: Path) -> Made:
    """Vectors, a dictionary or a task's examples that are damaged."""
    name = rng.choice(["words.vec", "words.npy", "words.txt", "tokens.npy", "pairs.txt", "tasks"])
    for file in material.glob("*.*"):
        shutil.copy(file, scratch)
    shutil.copytree(material / "tasks", scratch / "tasks")
    file = scratch / name
    model, out = str(material / "gpt2"), str(scratch / "out")
    transfer = ["transfer", "--source", model, "--helper", str(material / "bloom"), "--out", out]
    if name == "tasks":
        file = scratch / "tasks/germeval2018/test.jsonl"
        call = ["evaluate", "tasks", "--model", model, "--limit", "2",
                "--tasks", "clp_germeval2018_coarse_question",
                "--task-data", str(scratch / "tasks")]  # fmt: skip
    elif name == "tokens.npy":
        call = [*transfer, "--method", "focus", "--token-vectors", str(file)]
    else:
        words = str(scratch / ("words.npy" if name == "words.txt" else name))
        words = words if name.startswith("words") else str(scratch / "words.vec")
        call = [*transfer, "--method", "wechsel", "--dictionary", str(scratch / "pairs.txt"),
                "--source-vectors", words, "--target-vectors", words]  # fmt: skip
    if file.suffix == ".npy" and rng.random() < 0.5:
        table = np.load(file)
        odd = rng.choice(["nan", "int8", "bool", "complex64", "float64", "object", "flat", "none"])
        table[0, 0] = np.nan if odd == "nan" else table[0, 0]
        table = {"flat": table.reshape(-1), "none": table[:, :0]}.get(odd, table)
        table = table if odd in ("nan", "flat", "none") else table.astype(odd)
        np.save(file, table, allow_pickle=True)
        return f"{name} {odd}", call, odd != "float64"
    if file.suffix in (".vec", ".txt", ".jsonl") and rng.random() < 0.5:
        lines = file.read_text("utf-8").splitlines()
        odd = rng.choice(["", " ", "x", "a nan inf 1 2", "1e400 " * 5, "\x1b[31m \x00", "[]", "{}"])
        lines[rng.randrange(len(lines))] = odd
        file.write_text("\n".join(lines), "utf-8")
        return f"{name}: {odd!r}", call, False
    what, must_fail = damage_file(rng, file)
    return what, call, must_fail and "outside" not in what


def begun(rng: random.Random, material: Path, scratch: Path) -> Made:
    """A corpus that is begun, with something damaged, to be gone on with."""
    folder = shutil.copytree(material / "begun", scratch / "corpus")
    files = sorted(file for file in folder.rglob("*.json"))
    if rng.random() < 0.6:
        what = damage_json(rng, rng.choice(files))
    else:
        what, _ = damage_file(rng, some_file(rng, folder))
    return what, partial(same_corpus, corpus=str(folder), material=str(material)), False


def same_corpus(corpus: str, material: str) -> None:
    """Go on with a corpus, and compare it with one that was never interrupted."""
    run_stage(prepare_text(Path(material), Path(corpus)))
    whole = Path(material, "corpus")
    files = sorted(file.name for file in whole.glob("*-0*"))
    different = [f for f in files if Path(corpus, f).read_bytes() != (whole / f).read_bytes()]
    documents = [json.loads((Path(folder, "manifest.json")).read_text())["documents"]
                 for folder in (whole, corpus)]  # fmt: skip
    if different or len({*documents}) > 1:
        print(f"other numbers: {different}, {documents}")


def teacher(rng: random.Random, material: Path, scratch: Path) -> Made:
    """A recipe for polishing with an odd value, or whose models are damaged."""
    values = yaml.safe_load((material / "polish.yaml").read_text())
    model = shutil.copytree(material / "started", scratch / "model")
    source = shutil.copytree(material / "gpt2", scratch / "source")
    values["model"]["path"], values["teacher"]["path"] = str(model), str(source)
    values["train"]["out"] = str(scratch / "out")
    kind = rng.choice(["value", "value", "origins", "origin rows", "source", "other source"])
    what, must_fail = kind, False
    if kind == "value":
        keys = [*values["teacher"], "layer", "next_token", "hidden_states", "revision", "new"]
        section = rng.choice(["teacher", "teacher", "optimizer"])
        key = rng.choice(keys if section == "teacher" else [*values["optimizer"]])
        values[section][key] = odd = rng.choice([odd for odd in ODD if odd is not HUGE])
        what = f"{section}.{key} {str(odd)[:30]!r}"
    elif kind == "origins":
        what, must_fail = damage_file(rng, model / "transfer_origins.npz")
        must_fail = must_fail and "outside" not in what
    elif kind == "origin rows":
        number = rng.choice([-1, 0, 299, 300, 2**31, 2**63 - 1])
        origins: dict[str, Any] = rng.choice(
            [
                {"copied": np.array([number])},
                {"copied": np.array([0.5])},
                {"copied": np.array(["a"])},
                {"copied": np.array([{}], object)},
                {"copied": np.zeros((3, 3), int)},
                {"combined": np.arange(300)},
                {"copied": np.arange(300)},
                {"copied": np.arange(300), "combined": np.arange(300)},
                {"\x1b[31m": np.arange(300), "copied": np.arange(3)},
                {"copied": np.zeros(0, int)},
                {},
            ]
        )
        np.savez(model / "transfer_origins.npz", **origins)
        what = f"origins {str(origins)[:60]!r}"
    elif kind == "source":
        what, must_fail = damage_file(rng, some_file(rng, source))
    else:
        values["teacher"]["path"] = str(material / rng.choice(["bloom", "llama", "run", "corpus"]))
        must_fail = True
    file = scratch / "polish.yaml"
    file.write_text(yaml.safe_dump(values, allow_unicode=True), "utf-8")
    return what, ["train", "--config", str(file)], must_fail


def chain_folder(rng: random.Random, material: Path, scratch: Path) -> Made:
    """A chain that is done, or was stopped before its export, with something damaged."""
    values = yaml.safe_load((material / "chain.yaml").read_text())
    folder = shutil.copytree(material / "chain", scratch / "chain")
    if rng.random() < 0.5:
        shutil.rmtree(folder / "small/model")
    kind = rng.choice(["settings", "json", "bytes", "gone"])
    if kind == "settings":
        what = damage_json(rng, folder / "small/settings.json")
    elif kind == "json":
        files = [file for file in folder.rglob("*.json") if "checkpoints" not in file.parts]
        what = damage_json(rng, rng.choice(sorted(files)))
    elif kind == "bytes":
        what, _ = damage_file(rng, some_file(rng, folder))
    else:
        gone = rng.choice(sorted(path for path in folder.rglob("*") if path.is_dir()))
        shutil.rmtree(gone)
        what = f"{gone.relative_to(folder)} gone"
    values["out"] = str(folder)
    file = scratch / "chain.yaml"
    file.write_text(yaml.safe_dump(values), "utf-8")
    return what, ["chain", "--config", str(file)], False


TEMPLATES = (
    "", "{{", "{% for m in messages %}", "{{ 1 / 0 }}", "{{ 1 + 'a' }}", "{{ messages.x.y.z }}",
    "{{ raise_exception('no\x1b[31m') }}", "{{ 'a' * 10 ** 11 }}", "{{ range(10 ** 9) | list }}",
    "{% include '/etc/passwd' %}", "{{ ''.__class__.__mro__ }}", "{{ lipsum.__globals__ }}",
    "{{ undefined_function() }}", "{{ messages | tojson }}", "{{ 10 ** 10 ** 8 }}", "constant",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{% set x = [] %}{{ x.append(x) }}{{ x }}",
    "{{ bos_token }}{{ eos_token }}{{ pad_token }}", "\x00", "{{ messages[5].content }}",
    "{% generation %}{{ messages[0].content }}{% endgeneration %}", "{{ strftime_now('%Y') }}",
)  # fmt: skip


def template(rng: random.Random, material: Path, scratch: Path) -> Made:
    """A model with a template of conversations that is odd or damaged."""
    model = shutil.copytree(material / "exported", scratch / "model")
    file = model / "chat_template.jinja"
    kind = rng.choice(["text", "text", "bytes", "settings"])
    must_fail = False
    if kind == "text":
        what = rng.choice(TEMPLATES)
        file.write_text(what)
    elif kind == "bytes":
        what, must_fail = damage_file(rng, file)
    else:
        file.unlink()
        settings = json.loads((model / "tokenizer_config.json").read_text())
        odd = rng.choice([*(odd for odd in ODD if odd is not HUGE), *TEMPLATES])
        named = [{"name": "default", "template": odd}, {"name": "tool_use", "template": TEMPLATE}]
        settings["chat_template"] = what = rng.choice([odd, named, named[1:]])
        (model / "tokenizer_config.json").write_text(json.dumps(settings))
    call = ["evaluate", "tasks", "--model", str(model), "--tasks", "germeval2018", "--limit", "2",
            "--task-data", str(material / "tasks"), "--apply-chat-template"]  # fmt: skip
    return f"{kind} {str(what)[:60]!r}", call, must_fail


EXAMPLES = (
    "{}", "[]", "x", '{"text": "a"}', '{"text": null, "label": "OTHER"}',
    '{"text": "a", "label": "neither"}', '{"text": "", "label": 7}',
)  # fmt: skip


def own_task(rng: random.Random, material: Path, scratch: Path) -> Made:
    """A task of one's own with an odd value, or whose files are damaged."""
    folder = shutil.copytree(material / "own", scratch / "own")
    file = folder / "own.yaml"
    values = yaml.safe_load(file.read_text())
    values["dataset_kwargs"]["data_files"]["test"] = str(folder / "test.jsonl")
    file.write_text(yaml.safe_dump(values))
    flags, must_fail = [], False
    kind = rng.choice(["value", "value", "file", "data", "line", "fewshot"])
    if kind == "value":
        container, key = rng.choice(list(_places(values)))
        odd = rng.choice([odd for odd in ODD if odd is not HUGE])
        container[key], what = odd, f"{key} {str(odd)[:30]!r}"
        file.write_text(yaml.safe_dump(values, allow_unicode=True), "utf-8")
    elif kind == "file":
        what, _ = damage_file(rng, file)
    elif kind == "data":
        what, _ = damage_file(rng, folder / "test.jsonl")
    elif kind == "line":
        lines = (folder / "test.jsonl").read_text().splitlines()
        lines[rng.randrange(len(lines))] = what = rng.choice(EXAMPLES)
        (folder / "test.jsonl").write_text("\n".join(lines))
    else:
        number = rng.choice(["1", "3", "4", "5", "1000000"])
        flags, what = ["--num-fewshot", number], number
    call = ["evaluate", "tasks", "--model", str(material / "gpt2"), "--tasks", "own",
            "--include-path", str(folder), *flags]  # fmt: skip
    return f"{kind} {what}", call, must_fail


def metrics(rng: random.Random, material: Path, scratch: Path) -> Made:
    """A run that has told odd things, or whose checkpoint is damaged."""
    folder = shutil.copytree(material / "run", scratch / "run")
    if rng.random() < 0.5:
        file = folder / "metrics.jsonl"
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        line = rng.choice(lines)
        line[rng.choice(sorted(line))] = odd = rng.choice([odd for odd in ODD if odd is not HUGE])
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        what = f"metrics {odd!r:.30}"
    else:
        what, _ = damage_file(rng, some_file(rng, folder / "checkpoints"))
    resume = [
        "train",
        "--config",
        str(material / "run.yaml"),
        "--train.out",
        str(folder),
        "--resume",
    ]
    calls: list[Call] = [
        [
            "runs",
            str(scratch),
            "--json",
            str(scratch / "runs.json"),
            "--plot",
            str(scratch / "p.png"),
        ],
        partial(clp_jax.list_runs, places=str(scratch)),
        resume,
        ["convert", str(folder), str(scratch / "out"), "--to", "hf"],
    ]
    return what, rng.choice(calls), False


def chain(rng: random.Random, material: Path, scratch: Path) -> Made:
    """A chain with a value that is odd; what its plan lets pass has to come."""
    values = yaml.safe_load((material / "chain.yaml").read_text())
    values["out"] = str(scratch / "chain")
    wishes = ({"method": "focus"}, {"method": "wechsel"}, {"method": "clpp"}, {"dtype": "int8"},
              {"data": ["nowhere.txt"]}, {"method": "focus", "token_vectors": "nowhere.npy"},
              {"method": "wechsel", "source_vectors": "a", "target_vectors": "b"})  # fmt: skip
    if rng.random() < 0.3:
        wish = rng.choice(wishes)
        values["transfer"] = wish
        what, must_fail = str(wish), True
    else:
        container, key = rng.choice(list(_places(values)))
        odd = rng.choice([odd for odd in ODD if odd is not HUGE])
        container[key], what, must_fail = odd, f"{key} {str(odd)[:30]!r}", False
    file = scratch / "chain.yaml"
    file.write_text(yaml.safe_dump(values, allow_unicode=True), "utf-8")
    return what, partial(promised, config=str(file)), must_fail


def promised(config: str) -> None:
    """Plan a chain, and go it where its plan lets it pass."""
    run_stage(["chain", "--config", config, "--dry-run"])
    try:
        run_stage(["chain", "--config", config])
    except SystemExit as end:
        print(f"found late: {end.code}")
        raise


NO_FLOATS = ("bool", "int8", "uint32", "complex64", "float8_e4m3fn", "object", "U5", bool, int,
             np.int8, np.complex64, np.dtype("V4"), "x", [], {})  # fmt: skip
OBJECTS: tuple[Any, ...] = (
    *ODD, b"bytes", object(), {1}, len, Path("nowhere"), np.int64(3), np.float32("nan"), 1j,
    np.zeros(3), "texts", range(3), ("a", 1), "\udcff", "x\0", "gs://b/x", PrepareConfig(),
)  # fmt: skip


def arguments(material: Path, scratch: Path) -> dict[str, dict[str, Any]]:
    """What each function in Python takes, all of it good."""
    gpt2, bloom, lines = material / "gpt2", str(material / "bloom"), str(material / "text.jsonl")
    out, recipe, chain = scratch / "out", material / "run.yaml", material / "chain.yaml"
    values = yaml.safe_load(chain.read_text()) | {"out": str(out)}
    run = RunConfig.from_yaml(recipe, ["--train.out", str(out)])
    unset: dict[str, Any] = dict.fromkeys(
        ("token_vectors", "source_vectors", "target_vectors", "dictionary", "source_weight",
         "neighbours", "temperature", "strength", "count_exponent", "atoms", "spread_shrinkage")
    )  # fmt: skip
    return {
        "convert_checkpoint": {"source": gpt2, "out": out, "to": "hf", "dtype": None, "mesh": None},
        "load_model": {
            "name": bloom, "mesh": None, "dtype": None, "compute_dtype": "float32",
            "revision": None,
        },
        "save_model": {"model": None, "out": out, "origin": bloom, "dtype": None},
        "transfer_model": {
            "source": gpt2, "helper": [bloom], "out": out, "mesh": None, "method": "mean",
            "data": [lines], "text_field": "text", "match_spread": None, "calibrate": False,
            "no_fallback": False, "by_reliability": False, "fuzzy": False, "extend": False,
            "pad_to_multiple_of": 1,
            "trace": False, "seed": 0, "dtype": None, **unset,
        },
        "train_model": {"config": run, "resume": False, "profile": False},
        "evaluate_perplexity": {
            "model_path": bloom, "data": [lines], "sequence_length": 16, "stride": 8,
            "per_document": True, "batch_size": 4,
            "text_field": "text", "dtype": None, "mesh": None,
        },
        "evaluate_tasks": {
            "model_path": gpt2, "tasks": ["clp_germeval2018_coarse_question"],
            "task_data": material / "tasks", "batch_size": 4, "limit": 2, "dtype": None,
            "mesh": None,
        },
        "generate_text": {
            "model": bloom, "prompt": "Die", "max_new_tokens": 2, "temperature": 0.5, "seed": 0,
            "dtype": None, "mesh": None,
        },
        "prepare_corpus": {
            "inputs": [lines], "tokenizer": gpt2, "out": out, "config": None, "text_field": None,
            "limit": None, "source_tokenizer": None,
        },
        "run_chain": {"config": ChainConfig.from_dict(values), "dry_run": True},
        "plan_run": {
            "config": run, "accelerator": "v5litepod-4", "source": None, "vocab_size": None,
        },
        "list_runs": {"places": [material]},
        "compare_vocabularies": {
            "source": gpt2, "target": bloom, "data": [lines], "fuzzy": False, "text_field": "text",
        },
        "train_tokenizer": {
            "inputs": [lines], "vocab_size": 280, "out": out, "text_field": "text",
        },
        "new_model": {
            "tokenizer": gpt2, "out": out, "n_layer": 1, "n_embd": 8, "n_head": 2, "n_positions": 8,
        },
        "make_mesh": {"data": 1, "fsdp": -1, "tensor": 1, "sequence": 1, "devices": None},
        "run_quickstart": {"out": out, "corpus_source": "nowhere", "corpus_target": "nowhere"},
    }  # fmt: skip


def python(rng: random.Random, material: Path, scratch: Path) -> Made:
    """A function in Python with an argument that is odd, unknown or left out."""
    name, given = rng.choice([*arguments(material, scratch).items()])
    key, kind = (
        rng.choice(sorted(given)),
        rng.choices(["odd", "unknown", "left out"], [12, 1, 1])[0],
    )
    must_fail = kind == "unknown"
    odd = rng.choice(OBJECTS)
    if kind == "unknown":
        key = rng.choice(["methd", "config_", "é\x1b[31m", ""])
        given[key] = odd
    elif kind == "left out":
        del given[key]
    else:
        if key in ("dtype", "compute_dtype"):
            odd, must_fail = rng.choice(NO_FLOATS), True
        elif isinstance(given[key], list) and rng.random() < 0.3:
            odd = str(given[key][0])
            must_fail = key not in ("helper", "places")
        given[key] = odd
    function = getattr(clp_jax, name)
    call = partial(with_model, **given) if name == "save_model" else partial(function, **given)
    return f"{name} {key} {kind} {odd!r:.30}", call, must_fail


def with_model(**given: Any) -> None:
    """Save a model that is loaded, unless another one is given."""
    if "model" in given and given["model"] is None and isinstance(given.get("origin"), str | Path):
        with suppress(UserError):
            given["model"] = clp_jax.load_model(given["origin"])
    clp_jax.save_model(**given)


def place(rng: random.Random, material: Path, scratch: Path) -> Made:
    """A stage that is to write where nothing can be, or where something is."""
    model = shutil.copytree(material / "gpt2", scratch / "model")
    lines = shutil.copy(material / "text.jsonl", scratch / "text.jsonl")
    (scratch / "link").symlink_to("nowhere")
    (scratch / "full").mkdir()
    (scratch / "full/file").write_text("kept")
    os.mkfifo(scratch / "pipe")
    places = (
        "text.jsonl", "text.jsonl/below", "text.jsonl/far/below", "model", "model/below", "link",
        "link/below", "full", "pipe", "pipe/below", "a" * 255, "a" * 250, "b" * 300, "c/" * 2100,
        "d\x1b[31m", "e\nf", "$(touch fuzzed)", "é\udcff", "gs://b/x", "s3://b", ".", "..", "",
        " ", "-x", "--json", "~", "/", "/dev/null", "/dev/full", "/proc/x", "a:b", "*", "out",
    )  # fmt: skip
    word, tokenizer = rng.choice(places), str(model)
    stages = (
        ["convert", tokenizer, word, "--to", "hf"],
        ["transfer", "--source", tokenizer, "--helper", str(material / "bloom"),
         "--method", "mean", f"--out={word}"],
        ["tokenizer", "train", "--input", str(lines), "--vocab-size", "280", f"--out={word}"],
        ["new", "--tokenizer", tokenizer, f"--out={word}"],
        ["prepare", "--input", str(lines), "--tokenizer", tokenizer, f"--out={word}",
         "--execution.workers", "1"],
        ["train", "--config", str(material / "run.yaml"), f"--train.out={word}"],
        ["vocab", "--source", tokenizer, "--target", tokenizer, f"--json={word}"],
        ["runs", str(material), f"--plot={word}"],
        ["prepare", f"--input={word}", "--out", "corpus", "--execution.workers", "1"],
    )  # fmt: skip
    lost = ("text.jsonl", "model", "full", "pipe", "link", "/dev/null", "/dev/full", "gs://b/x")
    stage = rng.choice(stages)
    return f"{stage[0]} {word[:30]!r}", stage, word in lost and stage[-1].startswith("--out=")


Maker = Callable[[random.Random, Path, Path], Made]
TARGETS: tuple[tuple[str, int, Maker], ...] = (
    ("config", 5, config),
    ("family", 5, family),
    ("tokenizer", 4, tokenizer),
    ("bytes", 4, bytes_of_a_model),
    ("weights", 4, weights),
    ("run", 3, run),
    ("result", 3, result),
    ("corpus", 2, corpus),
    ("text", 3, text),
    ("recipe", 3, recipe),
    ("flag", 6, flag),
    ("odd tokenizer", 4, odd_tokenizer),
    ("vectors", 4, vectors),
    ("begun", 3, begun),
    ("metrics", 3, metrics),
    ("chain", 3, chain),
    ("chain folder", 3, chain_folder),
    ("teacher", 4, teacher),
    ("template", 3, template),
    ("own task", 4, own_task),
    ("python", 8, python),
    ("place", 4, place),
)


def call(run: Callable[[], Any], output: TextIO = sys.stderr) -> int:
    """Call a stage in this process: its exit status, or 70 for an exception."""
    with redirect_stdout(output), redirect_stderr(output):
        try:
            run()
        except UserError as error:  # of a function in Python
            print(printable(str(error)), file=output)
            return 1
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
    # They can go on; what they leave is theirs to judge.
    kept = ("train", "prepare", "chain", "run_chain")
    left = case.out and case.out.exists() and not case.arguments[0].startswith(kept)
    if "MemoryError" in said or "out of memory" in said.lower():
        ending = "over memory"
    elif "Traceback (most recent" in said or "panicked" in said or status == 70:
        ending = "traceback"
    elif status < 0:
        ending = "killed"
    elif CONTROL.search(said):
        ending = "control characters"
    elif "found late" in said:
        ending = "found late"
    elif "other numbers" in said:
        ending = "other numbers"
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
        status = call(case.run, stream)
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


def _state(folder: Path) -> list[tuple[str, int, int]]:
    """What is in a folder, and since when."""
    states = [(str(path), path.lstat()) for path in sorted(folder.rglob("*"))]
    return [(path, state.st_size, state.st_mtime_ns) for path, state in states]


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
    good = _state(material)
    for number in range(options.first, options.first + options.cases):
        scratch = place / str(number)
        scratch.mkdir()
        case = draw(number, material, scratch, lambda name: not only or name in only)
        endings.append(bounded(case, scratch, options.seconds, int(options.memory * 2**30)))
        if _state(material) != good:
            endings[-1] = replace(endings[-1], ending="input changed")
            good = _state(material)
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
