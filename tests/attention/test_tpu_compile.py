"""The real TPU compiler, which needs no TPU, takes attention forward and backward."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

COMPILE = """
import json
import jax, jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec
from clp_jax.attention import alibi_slopes, attend
from clp_jax.mesh import make_mesh

BATCH, LENGTH, HEADS = 4, 1024, 8
LLAMA = {"head_dim": 64, "kv_heads": 2}
GEMMA = {"head_dim": 256, "kv_heads": 1, "window": 512, "softcap": 50.0}
SPREAD = {"fsdp": 2, "tensor": 2, "sequence": 2}
chips = topologies.get_topology_desc("v5e:2x4", platform="tpu").devices
cases = [
    {"head_dim": head_dim, "alibi": alibi}
    for head_dim in (64, 80, 96, 112, 128)
    for alibi in (False, True)
]
cases += [LLAMA, GEMMA, {"head_dim": 64, "alibi": True, "mesh": SPREAD}, GEMMA | {"mesh": SPREAD}]


def compile_step(*, head_dim, kv_heads=HEADS, alibi=False, mesh=None, **kind):
    mesh = make_mesh(**mesh, devices=chips) if mesh else make_mesh(fsdp=1, devices=chips[:1])

    def step(query, key, value, gradient, segments):
        def attended(query, key, value):
            slopes = alibi_slopes(HEADS) if alibi else None
            return attend(
                query, key, value, scale=0.1, slopes=slopes, segments=segments, **kind
            )

        output, transpose = jax.vjp(attended, query, key, value)
        return output, transpose(gradient)

    def abstract(dtype, *shape):
        divided = shape and shape[0] % mesh.shape["tensor"] == 0
        spec = PartitionSpec(("data", "fsdp"), "sequence", *["tensor"] * bool(divided))
        sharding = NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct((BATCH, LENGTH, *shape), dtype, sharding=sharding)

    query, key = (abstract(jnp.bfloat16, heads, head_dim) for heads in (HEADS, kv_heads))
    segments = abstract(jnp.int32) if alibi else None
    with jax.set_mesh(mesh):
        return jax.jit(step).lower(query, key, key, query, segments).compile()


for case in cases:
    compiled = compile_step(**case)
    text = compiled.as_text()
    print(json.dumps({
        "case": case,
        "kernels": text.count('custom_call_target="tpu_custom_call"'),
        "all_scores": f",{LENGTH},{LENGTH}]" in text,
        "temporary": compiled.memory_analysis().temp_size_in_bytes,
        "gathers": text.count("all-gather("),
        "scatters": text.count("reduce-scatter("),
        "sums": text.count("all-reduce("),
    }))
"""

# No chip is asked for, so other compilers may run at the same time.
COMPILER_ONLY = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed")
def test_every_kind_is_two_kernels_and_never_all_scores():
    process = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=os.environ | COMPILER_ONLY,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    found = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    assert len(found) == 14
    for figures in found:
        assert figures["kernels"] == 2, figures
        assert not figures["all_scores"], figures
        # The scores of all heads would be 128 MiB in float32.
        assert figures["temporary"] < 96 * 2**20, figures
    *alone, spread, whole_keys = found
    for figures in alone:
        assert figures["gathers"] == figures["scatters"] == figures["sums"] == 0, figures
    # Keys, values and documents come together; the gradients of keys and values go back.
    assert (spread["gathers"], spread["scatters"], spread["sums"]) == (3, 2, 0), spread
    # Both devices of `tensor` have the single head of keys, whose gradients they sum.
    found = whole_keys["gathers"], whole_keys["scatters"], whole_keys["sums"]
    assert found == (2, 2, 1), whole_keys
