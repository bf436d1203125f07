"""Attention forward and backward, each way that this device has, for the shapes of models.

    python scripts/bench_attention.py --models gpt2 bloom-560m bloom-1b7 --length 1024 2048 \\
        --batch 8 --dtype bfloat16
    JAX_PLATFORMS=cpu python scripts/bench_attention.py --models gpt2 bloom-560m --length 512 \\
        --batch 1 --dtype float32

`attend` is what models call. The others take their turns in the same process; each time is the
median of several. FLOP/s count two products forward and four backward of the causal half, and no
recomputation. Memory is what the compiled program needs beside its arguments and results.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from clp_jax.attention import alibi_slopes, attend, cudnn, splash, triton
from clp_jax.attention.blockwise import attend_blockwise
from clp_jax.attention.dense import attend_dense
from clp_jax.evaluate.tables import markdown_table
from clp_jax.mesh import peak_flops, single_device_mesh

# Heads, head size, and whether there is ALiBi.
SHAPES: Mapping[str, tuple[int, int, bool]] = {
    "gpt2": (12, 64, False),
    "gpt2-xl": (25, 64, False),
    "bloom-560m": (16, 64, True),
    "bloom-1b7": (16, 128, True),
    "bloom-3b": (32, 80, True),
    "bloom-7b1": (32, 128, True),
}
HEADERS = ("model", "length", "way", "ms", "TFLOP/s", "of peak", "× dense", "memory, MiB")


def ways(
    length: int, heads: int, head_dim: int, slopes: Any, dtype: str
) -> dict[str, Callable[..., Array]]:
    """Every implementation that this device has, of queries, keys and values."""
    options = {"slopes": slopes, "segments": None, "start": 0}
    found: dict[str, Callable[..., Array]] = {
        "dense": partial(attend_dense, scale=1.0, slopes=slopes),
        "attend": partial(attend, scale=1.0, slopes=slopes),
        "blockwise": partial(attend_blockwise, **options),
    }
    match jax.default_backend():
        case "tpu":
            found["splash"] = partial(
                splash.attend_splash, kernel=splash.make_kernel(length, heads), **options
            )
        case "gpu":
            found["triton"] = partial(triton.attend_triton, **options)
            query = jax.ShapeDtypeStruct((1, length, heads, head_dim), dtype)
            if cudnn.serves(query, **options):
                found["cudnn"] = partial(cudnn.attend_cudnn, slopes=slopes)
    return found


def compiled(attend: Callable[..., Array], arrays: list[Array]) -> jax.stages.Compiled:
    """Forward and backward as one program."""

    def step(query: Array, key: Array, value: Array, gradient: Array) -> Any:
        attended, transpose = jax.vjp(attend, query, key, value)
        return attended, transpose(gradient)

    with jax.set_mesh(single_device_mesh()):
        return jax.jit(step).lower(*arrays).compile()


def seconds(steps: Mapping[str, Any], arrays: list[Array], repeats: int) -> dict[str, float]:
    """Median time of each, measured in turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            begin = time.perf_counter()
            jax.block_until_ready(step(*arrays))
            if turn:  # the first one warms up
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(of_step) for name, of_step in times.items()}


def measure(model: str, length: int, batch: int, dtype: str, repeats: int) -> list[Any]:
    """The lines of a table for one shape."""
    heads, head_dim, alibi = SHAPES[model]
    rng = np.random.default_rng(0)
    shape = (batch, length, heads, head_dim)
    arrays = [jnp.asarray(rng.normal(size=shape), dtype) for _ in range(4)]
    arrays[0] = arrays[0] * jnp.asarray(head_dim**-0.5, dtype)
    slopes = alibi_slopes(heads) if alibi else None
    steps = {
        name: compiled(attend, arrays)
        for name, attend in ways(length, heads, head_dim, slopes, dtype).items()
    }
    times = seconds(steps, arrays, repeats)
    flops = 6 * batch * heads * head_dim * length**2
    peak = peak_flops(jax.devices()[0].device_kind)
    return [
        (
            model,
            str(length),
            name,
            f"{1e3 * taken:.2f}",
            f"{flops / taken / 1e12:.2f}",
            f"{flops / taken / peak:.0%}" if peak else "-",
            f"{times['dense'] / taken:.2f}",
            f"{steps[name].memory_analysis().temp_size_in_bytes / 2**20:.0f}",
        )
        for name, taken in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=["gpt2", "bloom-560m"])
    parser.add_argument("--length", nargs="+", type=int, default=[1024, 2048])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    lines = [
        line
        for model in args.models
        for length in args.length
        for line in measure(model, length, args.batch, args.dtype, args.repeats)
    ]
    print(
        f"{date.today()}, {jax.devices()[0].device_kind}, jax {jax.__version__}, {args.dtype}, "
        f"batch {args.batch}, forward and backward\n"
    )
    print(markdown_table(HEADERS, lines))


if __name__ == "__main__":
    main()
