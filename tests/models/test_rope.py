import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from clp_jax.models.rope import RotaryEmbedding

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"rope_type": "linear", "factor": 3.0},
        {"rope_type": "dynamic", "factor": 3.0},
        {"rope_type": "llama3", "factor": 8.0} | LLAMA3,
        YARN,
        YARN | {"mscale": 0.7, "mscale_all_dim": 1.1, "beta_fast": 16, "truncate": False},
        YARN | {"attention_factor": 0.7},
    ],
    ids=str,
)
def test_angles_are_those_of_transformers(parameters):
    config = transformers.LlamaConfig(
        hidden_size=96,
        num_attention_heads=4,
        max_position_embeddings=256,
        rope_parameters={"rope_theta": 5e5} | parameters,
    )
    theirs = LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(256)[None])
    rope = RotaryEmbedding.from_hf(config.rope_parameters, head_dim=24, max_positions=256)
    for ours, expected in zip(rope(jnp.arange(256)[None]), theirs, strict=True):
        np.testing.assert_allclose(ours, expected[..., :12], atol=2e-6)
    assert rope.max_positions == (256 if parameters.get("rope_type") == "dynamic" else None)
