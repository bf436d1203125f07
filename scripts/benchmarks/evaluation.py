"""Tasks and generation against the hf model of lm-evaluation-harness and PyTorch's `generate`.

    JAX_PLATFORMS=cpu python scripts/benchmarks/evaluation.py --model MODEL \\
        --data tasks/germeval2018/test.jsonl

Both sides answer the same questions, or continue the same prompts, in turns in one process, after a
turn that compiles and is not counted. The times of a side are the medians of its turns, and the
ratios those of each turn. The tweets are evenly spread over the file.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
from harness import in_turns, print_machine, print_table, ratio

from clp_jax.checkpoint.hf import load_model
from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.generate import generate_batch
from clp_jax.mesh import inference_dtype

OURS = "clp_jax"
PROMPT = 32
"""Tokens of a prompt."""


def questions(file: Path, examples: int) -> list[tuple[str, str]]:
    """Two answers to the same question about each tweet."""
    tweets = [json.loads(line)["text"] for line in file.read_text("utf-8").splitlines()]
    spread = tweets[:: max(1, len(tweets) // examples)][:examples]
    contexts = [
        f"Tweet: {tweet}\nFrage: Ist dieser Tweet beleidigend?\nAntwort:" for tweet in spread
    ]
    return [(context, answer) for context in contexts for answer in (" Nein", " Ja")]


def likelihoods(
    folder: str, dtype: str, pairs: Sequence[tuple[str, str]], batch_sizes: Sequence[int]
) -> Mapping[str, Callable[[], Any]]:
    """A way to answer the questions for each side; the hf model's with each batch size."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from clp_jax.evaluate.harness import JaxLM

    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i)
        for i, pair in enumerate(pairs)
    ]
    model = load_model(folder, compute_dtype=inference_dtype(dtype))
    ours = JaxLM(model, load_tokenizer(folder))
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    theirs = {
        f"hf model, batch size {size}": HFLM(folder, device=device, dtype=dtype, batch_size=size)
        for size in batch_sizes
    }

    def way(side: Any) -> Callable[[], Any]:
        return lambda: [nats for nats, _ in side.loglikelihood(requests, disable_tqdm=True)]

    return {name: way(side) for name, side in {**theirs, OURS: ours}.items()}


def generations(
    folder: str, dtype: str, batch_sizes: Sequence[int], new: int
) -> dict[str, Callable[[], Any]]:
    """A way to continue prompts of random tokens for each side and number of prompts."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device)
    ours = load_model(folder, compute_dtype=inference_dtype(dtype))
    rng = np.random.default_rng(0)
    ways: dict[str, Callable[[], Any]] = {}
    for size in batch_sizes:
        prompts = rng.integers(5, ours.config.vocab_size, (size, PROMPT), np.int32)
        inputs = torch.tensor(prompts, device=device, dtype=torch.long)
        ways[f"PyTorch, {size}"] = lambda inputs=inputs: theirs.generate(
            inputs, max_new_tokens=new, do_sample=False, eos_token_id=None, pad_token_id=0
        ).tolist()
        ways[f"{OURS}, {size}"] = lambda prompts=prompts: generate_batch(
            ours, [*prompts], max_new_tokens=new
        )
    return ways


def print_speeds(
    ways: Mapping[str, Callable[[], Any]], amounts: Mapping[str, int], repeats: int
) -> dict[str, Any]:
    """Print how much each way does per second, also next to the first; returns what they found."""
    reference = next(iter(ways))
    found: dict[str, Any] = {}

    def timed(name: str) -> float:
        began = time.perf_counter()
        found[name] = ways[name]()
        return time.perf_counter() - began

    turns = in_turns(repeats + 1, {name: partial(timed, name) for name in ways})
    speeds = {name: [amounts[name] / took for took in turns[name][1:]] for name in ways}
    print_table(
        ("side", "per s", f"times {reference}"),
        (
            (name, f"{median(own):,.1f}", ratio(own, speeds[reference]))
            for name, own in speeds.items()
        ),
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="Hugging Face folder")
    parser.add_argument("--data", type=Path, help="GermEval 2018's test.jsonl")
    parser.add_argument("--examples", type=int, default=256, help="tweets")
    parser.add_argument("--hf-batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.model is None or arguments.data is None:
        parser.error("--model and --data are needed")
    folder, dtype = arguments.model, arguments.dtype
    print_machine("torch", "transformers", "lm_eval")
    pairs = questions(arguments.data, arguments.examples)
    ways = likelihoods(folder, dtype, pairs, arguments.hf_batch_sizes)
    print(f"Questions, {len(pairs) // 2:,} with two answers each:\n")
    amounts = dict.fromkeys(ways, len(pairs) // 2)
    found = print_speeds(ways, amounts, arguments.repeats)
    distance = np.abs(np.subtract(found[OURS], found[next(iter(ways))])).max()
    print(f"\nThe largest difference of two log-likelihoods is {distance:.1e} nats.\n")
    print(f"New tokens, {arguments.new_tokens} after each of some prompts of {PROMPT}:\n")
    ways = generations(folder, dtype, arguments.prompts, arguments.new_tokens)
    amounts = {name: int(name.split()[-1]) * arguments.new_tokens for name in ways}
    print_speeds(ways, amounts, arguments.repeats)


if __name__ == "__main__":
    main()
