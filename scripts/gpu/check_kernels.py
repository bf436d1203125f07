"""Attention on this device against the formula in float64: values and gradients, every way it has.

    python scripts/gpu/check_kernels.py

Errors are ‖found - expected‖ / ‖expected‖ of the output and of the gradients of query, key and
value, and the formula computed in the same dtype stands beside them. Exits with 1 where an error
is over its limit.
"""

import argparse
import sys
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from clp_jax.attention import alibi_slopes, attend, cudnn, triton
from clp_jax.attention.blockwise import attend_blockwise
from clp_jax.attention.dense import attend_dense
from clp_jax.evaluate.tables import markdown_table
from clp_jax.mesh import single_device_mesh

LIMITS = {"float32": 1e-5, "bfloat16": 1e-2}
FORMULA = "formula"
"""Has no limit: with ALiBi its float32 scores are large, and it rounds more than the kernels."""
HEADERS = ("case", "dtype", "way", "output", "query", "key", "value")


class Case(NamedTuple):
    """One attention problem: rows of a batch, heads, head size, and what is special of it."""

    name: str
    length: int
    heads: int
    head_dim: int
    kv_heads: int | None = None
    alibi: bool = False
    packed: bool = False
    window: int | None = None
    softcap: float | None = None


CASES = (
    Case("gpt2", 1024, 12, 64),
    Case("gpt2, odd length", 1000, 12, 64),
    Case("gpt2, documents", 1024, 12, 64, packed=True),
    Case("gpt2-xl", 2048, 25, 64),
    Case("bloom-560m", 2048, 16, 64, alibi=True),
    Case("bloom-560m, documents", 2048, 16, 64, alibi=True, packed=True),
    Case("bloom-3b", 2048, 32, 80, alibi=True),
    Case("bloom-7b1", 2048, 32, 128, alibi=True),
    Case("head size 96, no ALiBi", 1024, 8, 96),
    Case("llama-3.2-1b", 2048, 32, 64, kv_heads=8),
    Case("llama-3.2-1b, documents", 2048, 32, 64, kv_heads=8, packed=True),
    Case("mistral-7b, window", 2048, 32, 128, kv_heads=8, window=1024),
    Case("gemma-2-2b, window", 2048, 8, 256, kv_heads=4, window=1024, softcap=50.0),
    Case("gemma-3-270m, window", 2048, 4, 256, kv_heads=1, window=512),
)
SMALL = (
    Case("gpt2", 256, 2, 64),
    Case("bloom, documents", 256, 2, 64, alibi=True, packed=True),
    Case("gemma, documents", 256, 2, 64, kv_heads=1, packed=True, window=100, softcap=5.0),
)


def expected(problem: dict[str, Any], slopes: np.ndarray | None, case: Case) -> list[np.ndarray]:
    """Output and gradients by the formula in float64, one row of the batch at a time.

    ALiBi is that of the paper: slope * (key position - query position).
    """

    def attend_row(query: Array, key: Array, value: Array, documents: Array) -> Array:
        group = query.shape[1] // key.shape[1]
        key, value = (jnp.repeat(x, group, axis=1) for x in (key, value))
        distance = jnp.arange(key.shape[0])[None, :] - jnp.arange(query.shape[0])[:, None]
        scores = jnp.einsum("qhd,khd->hqk", query, key) * query.shape[-1] ** -0.5
        if case.softcap is not None:
            scores = case.softcap * jnp.tanh(scores / case.softcap)
        if slopes is not None:
            scores += jnp.asarray(slopes, jnp.float64)[:, None, None] * distance[None]
        nearest = -(case.window or case.length)
        mask = (distance <= 0) & (distance > nearest) & (documents[:, None] == documents[None, :])
        weights = jax.nn.softmax(jnp.where(mask[None], scores, -jnp.inf), axis=-1)
        return jnp.einsum("hqk,khd->qhd", weights, value)

    @jax.jit
    def solve(row: dict[str, Array]) -> tuple[Array, ...]:
        attended, transpose = jax.vjp(
            partial(attend_row, documents=row["documents"]), row["query"], row["key"], row["value"]
        )
        return attended, *transpose(row["gradient"])

    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        rows = len(problem["query"])
        solved = [
            solve(
                {
                    name: jnp.asarray(x[index], None if name == "documents" else jnp.float64)
                    for name, x in problem.items()
                }
            )
            for index in range(rows)
        ]
        return [np.stack(parts) for parts in zip(*solved, strict=True)]


def ways(case: Case, dtype: str, documents: Array | None) -> dict[str, Callable[..., Array]]:
    """Each implementation that this device has, of query, key and value before scaling."""
    slopes = alibi_slopes(case.heads) if case.alibi else None
    scale = case.head_dim**-0.5
    options: dict[str, Any] = {
        "slopes": slopes,
        "window": case.window,
        "softcap": case.softcap,
        "segments": documents,
    }

    def scaled(attend: Callable[..., Array], *arrays: Array, **options: Any) -> Array:
        query, key, value = arrays
        return attend((query.astype(jnp.float32) * scale).astype(dtype), key, value, **options)

    found: dict[str, Callable[..., Array]] = {
        FORMULA: partial(attend_dense, scale=scale, **options),
        "attend": partial(attend, scale=scale, **options),
    }
    if jax.default_backend() == "cpu":
        found["blockwise"] = partial(scaled, attend_blockwise, **options)
    if jax.default_backend() == "gpu":
        if case.length % triton.MULTIPLE == 0:
            found["triton"] = partial(scaled, triton.attend_triton, **options)
        query = jax.ShapeDtypeStruct((1, case.length, case.heads, case.head_dim), dtype)
        if cudnn.serves(query, **options):
            found["cudnn"] = partial(scaled, cudnn.attend_cudnn, slopes=slopes, window=case.window)
    return found


def check(case: Case, batch: int, dtypes: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Lines of the table for one case; the inputs are exact in each of the dtypes."""
    rng = np.random.default_rng(0)
    kv_heads = case.kv_heads or case.heads
    names = {"query": case.heads, "key": kv_heads, "value": kv_heads, "gradient": case.heads}
    exact = {
        name: np.asarray(
            jnp.asarray(rng.normal(size=(batch, case.length, heads, case.head_dim)), jnp.bfloat16)
        )
        for name, heads in names.items()
    }
    documents = np.sort(rng.integers(0, 4 if case.packed else 1, (batch, case.length)), axis=1)
    problem = {name: x.astype(np.float32) for name, x in exact.items()}
    slopes = alibi_slopes(case.heads) if case.alibi else None
    solution = expected(problem | {"documents": documents.astype(np.int32)}, slopes, case)
    lines = []
    for dtype in dtypes:
        arrays = [jnp.asarray(problem[name], dtype) for name in names]
        masked = jnp.asarray(documents, jnp.int32) if case.packed else None
        for way, attention in ways(case, dtype, masked).items():

            @jax.jit
            def compute(query: Array, key: Array, value: Array, gradient: Array) -> Any:
                attended, transpose = jax.vjp(attention, query, key, value)  # noqa: B023
                return attended, *transpose(gradient)

            with jax.set_mesh(single_device_mesh()):
                found = [np.asarray(x, np.float64) for x in compute(*arrays)]
            errors = [
                np.linalg.norm(one - other) / np.linalg.norm(other)
                for one, other in zip(found, solution, strict=True)
            ]
            # The negation also catches NaN.
            failed = [way != FORMULA and not error < LIMITS[dtype] for error in errors]
            cells = [f"{e:.1e}{' FAILED' * bad}" for e, bad in zip(errors, failed, strict=True)]
            lines.append((case.name, dtype, way, *cells))
            print(*lines[-1], sep=" | ", flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--cases", default="", help="only those whose name has this in it")
    parser.add_argument("--small", action="store_true", help="two small cases, for any device")
    args = parser.parse_args()
    lines = [
        line
        for case in (SMALL if args.small else CASES)
        if args.cases in case.name
        for line in check(case, args.batch, tuple(LIMITS))
    ]
    print(f"\n{date.today()}, {jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    print(markdown_table(HEADERS, lines))
    if any("FAILED" in cell for line in lines for cell in line):
        sys.exit("Some of the kernels do not compute what the formula says.")


if __name__ == "__main__":
    main()
