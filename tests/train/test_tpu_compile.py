"""The real TPU compiler, which needs no TPU, takes the training step."""

import importlib.util
import json
import os
import re
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
    "program": step.as_text(),
}))
"""

# No chip is asked for, so other compilers may run at the same time.
COMPILER_ONLY = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
LENGTH = 384
"""Tokens of a sequence; no axis of a parameter is as long, on all chips together or on one."""
SIZES = {"vocab_size": 512, "n_layer": 2, "n_head": 4}
GROUPED = {
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MODELS = {
    "gpt2": {"model_type": "gpt2", "n_embd": 256, "n_positions": 512, **SIZES},
    "bloom": {"model_type": "bloom", "hidden_size": 256, **SIZES},
    "llama": {"model_type": "llama", **GROUPED},
    "gemma2": {"model_type": "gemma2", "head_dim": 64, "sliding_window": 128, **GROUPED},
}
KEYS_AND_VALUES = 2 * 2 * 256 * 2 * 64
WHOLE = {"gpt2": 512 * 256, "bloom": 0, "llama": KEYS_AND_VALUES, "gemma2": KEYS_AND_VALUES}
"""Parameters that the four chips of `tensor` share: positions, and too few heads of keys."""
SUM = re.compile(
    r"= (.*?) (?:all-reduce|reduce-scatter|reduce|scatter|dot|convolution)(?:-start)?\("
)
LOW = re.compile(r"\b(?:bf16|f16)\[([\d,]*)\]")


def low_precision_sums(program):
    """The instructions that sum what is no activation in less than float32.

    Activations have an axis of the tokens of a sequence, which no parameter has. Their sums over
    heads, widths or vocabularies that chips share may be bfloat16, as activations are: they have as
    many terms as there are such chips. The gradients of parameters are sums over all tokens.
    """
    for line in program.splitlines():
        found = SUM.search(line)
        if found and any(str(LENGTH) not in a.split(",") for a in LOW.findall(found[1])):
            yield line.strip()


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed")
@pytest.mark.parametrize("name", MODELS)
def test_step_compiles_for_eight_v5e_chips(settings, name):
    settings["data"]["sequence_length"] = LENGTH
    settings["train"]["loss_chunk"] = LENGTH
    process = subprocess.run(
        [sys.executable, "-c", COMPILE, json.dumps(settings), json.dumps(MODELS[name])],
        env=os.environ | COMPILER_ONLY,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    figures = json.loads(process.stdout.splitlines()[-1])
    state_of_a_chip = 3 * 4 * ((figures["parameters"] - WHOLE[name]) / 8 + WHOLE[name] / 2)
    assert figures["donated"] == pytest.approx(state_of_a_chip, rel=0.1)
    assert figures["temporary"] < 64 * 2**20
    dropout_of_weights = name == "gpt2"  # By its default; the others' kernels hold no scores.
    assert (f",{LENGTH},{LENGTH}]" in figures["program"]) == dropout_of_weights
    assert list(low_precision_sums(figures["program"])) == []
