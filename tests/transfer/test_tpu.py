"""The real TPU compiler runs on any machine: the transfer compiles for a slice of eight chips."""

import json
import os
import subprocess
import sys

import pytest

# In a process of its own, so that the TPU's library never meets the fake CPU devices.
PROGRAM = """
import json
import jax
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec
from clp_jax.mesh import make_mesh
from clp_jax.transfer.blockwise import _in_blocks
from clp_jax.transfer.methods.clp import combine, unit_sums
from clp_jax.transfer.methods.linear import Center, add_up
from clp_jax.transfer.methods.pursuit import Pursuit
from clp_jax.transfer.methods.similarity import Nearest, sparsemax

topology = topologies.get_topology_desc("v5e:2x4", platform="tpu")
mesh = make_mesh(fsdp=2, tensor=4, devices=topology.devices)

def rows(dim, spec=PartitionSpec(mesh.axis_names)):
    return jax.ShapeDtypeStruct((8192, dim), "float32", sharding=NamedSharding(mesh, spec))

whole = rows(256, PartitionSpec()), rows(512, PartitionSpec())
center = Center(*(jax.ShapeDtypeStruct((dim,), "float32") for dim in (256, 512)))
programs = {
    "clp": jax.jit(lambda missing, *shared: combine(missing, unit_sums(*shared))).lower(
        rows(256), rows(256), rows(512)
    ),
    "linear": add_up.lower(
        rows(256), rows(512), jax.ShapeDtypeStruct((8192,), "float32"), center
    ),
} | {
    name: _in_blocks.lower(rows(256), *whole, None, weigh=weigh, largest=None, mesh=mesh)
    for name, weigh in {"nearest": Nearest(), "sparsemax": sparsemax, "pursuit": Pursuit(8)}.items()
}
sizes = {}
for name, program in programs.items():
    memory = program.compile().memory_analysis()
    sizes[name] = (
        memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    )
print(json.dumps(sizes))
"""


@pytest.mark.slow
def test_transfer_compiles_for_eight_tpu_chips():
    pytest.importorskip("libtpu")
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    sizes = json.loads(result.stdout)
    tables = 8192 * (256 + 256 + 512 + 512) * 4
    assert sizes["clp"] < 1.1 * tables / 8, "every table is spread over the chips"
    assert sizes["linear"] < 1.5 * 8192 * (256 + 512) * 4 / 8
    similarities = 8192 * 8192 * 4
    for weigh in ("nearest", "sparsemax", "pursuit"):
        assert sizes[weigh] < similarities / 8, "the similarities never exist together, on no chip"
