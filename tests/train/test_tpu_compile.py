"""The real TPU compiler, which needs no TPU, takes the training step."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

COMPILE = """
import json, sys
import jax, jax.numpy as jnp
from flax import nnx
from jax.experimental import topologies
from clp_jax.config import RunConfig
from clp_jax.mesh import make_mesh
from clp_jax.models import abstract_model, abstract_parameters, read_decoder_config
from clp_jax.train.optimizer import make_optimizer
from clp_jax.train.step import make_train_step

config = RunConfig.from_dict(json.loads(sys.argv[1]))
chips = topologies.get_topology_desc("v5e:2x4", platform="tpu").devices
mesh = make_mesh(**config.mesh.sizes, devices=chips)
model = abstract_model(read_decoder_config(json.loads(sys.argv[2])), dtype=jnp.bfloat16)
params = abstract_parameters(model, mesh)
optimizer = make_optimizer(config.optimizer, config.train.steps)
step = make_train_step(nnx.graphdef(model), params, optimizer, mesh=mesh, config=config, eos_id=0)
memory = step.memory_analysis()
print(json.dumps({
    "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
    "donated": memory.alias_size_in_bytes,
    "temporary": memory.temp_size_in_bytes,
}))
"""

# No chip is asked for, so other compilers may run at the same time.
COMPILER_ONLY = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
SIZES = {"vocab_size": 512, "n_layer": 2, "n_head": 4}
MODELS = {
    "gpt2": {"model_type": "gpt2", "n_embd": 256, "n_positions": 128, **SIZES},
    "bloom": {"model_type": "bloom", "hidden_size": 256, **SIZES},
}


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed")
@pytest.mark.parametrize("name", MODELS)
def test_step_compiles_for_eight_v5e_chips(settings, name):
    settings["data"]["sequence_length"] = 128
    process = subprocess.run(
        [sys.executable, "-c", COMPILE, json.dumps(settings), json.dumps(MODELS[name])],
        env=os.environ | COMPILER_ONLY,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    figures = json.loads(process.stdout.splitlines()[-1])
    state_of_a_chip = 3 * 4 * figures["parameters"] / 8
    assert figures["donated"] == pytest.approx(state_of_a_chip, rel=0.1)
    assert figures["temporary"] < 64 * 2**20
