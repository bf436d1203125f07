"""Attention forward and backward, each way that this device has, for the shapes of models.

    python scripts/benchmarks/attention.py --models gpt2 bloom-560m bloom-1b7 --length 1024 2048 \\
        --batch 8 --dtype bfloat16
    JAX_PLATFORMS=cpu python scripts/benchmarks/attention.py --models gpt2 bloom-560m \\
        --length 512 --batch 1 --dtype float32

`attend` is what models call. The others take their turns in the same process; each time is the
median of several. FLOP/s count two products forward and four backward of the causal half, and no
recomputation. Memory is what the compiled program needs on top of its arguments and results.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness import print_machine, print_table, ratio, times_in_turns
from jaxtyping import Array
from models import MODELS

from clp_jax.attention import alibi_slopes, attend, cudnn, splash, triton
from clp_jax.attention.blockwise import attend_blockwise
from clp_jax.attention.dense import attend_dense
from clp_jax.mesh import peak_flops, single_device_mesh
from clp_jax.models import read_decoder_config

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


def measure(
    model: str, length: int, batch: int, dtype: str, repeats: int
) -> Iterator[tuple[str, ...]]:
    """The rows of one shape."""
    config = read_decoder_config(MODELS[model])
    heads, kv_heads, head_dim = config.num_heads, config.num_kv_heads, config.head_dim
    rng = np.random.default_rng(0)
    arrays = [
        jnp.asarray(rng.normal(size=(batch, length, of_array, head_dim)), dtype)
        for of_array in (heads, kv_heads, kv_heads, heads)
    ]
    arrays[0] = arrays[0] * jnp.asarray(head_dim**-0.5, dtype)
    slopes = alibi_slopes(heads) if model.startswith("bloom") else None
    programs = {
        name: compiled(attend, arrays)
        for name, attend in ways(length, heads, head_dim, slopes, dtype).items()
    }
    steps = {name: partial(program, *arrays) for name, program in programs.items()}
    times = times_in_turns(repeats, steps)
    flops = 6 * batch * heads * head_dim * length**2
    peak = peak_flops(jax.devices()[0].device_kind)
    for name, turns in times.items():
        rate = flops / median(turns)
        yield (
            model,
            f"{length:,}",
            name,
            f"{1e3 * median(turns):.2f}",
            f"{rate / 1e12:.2f}",
            f"{rate / peak:.0%}" if peak else "-",
            ratio(times["dense"], turns),
            f"{programs[name].memory_analysis().temp_size_in_bytes / 2**20:,.0f}",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["gpt2", "bloom-560m"])
    parser.add_argument("--length", nargs="+", type=int, default=[1024, 2048])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    print_machine()
    print(f"{options.dtype}, batch {options.batch}, forward and backward\n")
    rest = options.batch, options.dtype, options.repeats
    shapes = product(options.models, options.length)
    print_table(HEADERS, (row for shape in shapes for row in measure(*shape, *rest)))


if __name__ == "__main__":
    main()
