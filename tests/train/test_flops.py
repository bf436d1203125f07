"""The counted operations of a step are those of the compiled program."""

from types import SimpleNamespace

import jax
import pytest
from flax import nnx

from clp_jax.config import RunConfig
from clp_jax.mesh import make_mesh
from clp_jax.models import abstract_model, abstract_parameters, read_decoder_config
from clp_jax.train.flops import step_flops_per_token
from clp_jax.train.optimizer import make_optimizer
from clp_jax.train.step import make_train_step
from clp_jax.train.teacher import Teacher

# Wide and short, so that neither softmax nor attention counts, whose masked half is computed too;
# of one layer, because the compiler counts a scanned body once.
LENGTH, ROWS = 8, 32
SHAPE = {
    "model_type": "gpt2", "vocab_size": 500, "n_embd": 256, "n_layer": 1, "n_head": 4,
    "n_positions": 2 * LENGTH, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0,
}  # fmt: skip
BODY = {"layers": 0, "positions": 0, "final_norm": 0}
TAUGHT = {"path": "unused", "next_token": 0}


@pytest.mark.parametrize(
    ("frozen", "teacher"),
    [
        ({}, {}),
        ({"layers": 0}, {}),
        ({"embeddings": 0}, {}),
        (BODY, TAUGHT | {"hidden_states": 1}),
        (BODY, TAUGHT | {"hidden_states": 0, "likelihoods": 1}),
    ],
    ids=["all", "layers frozen", "embeddings frozen", "states", "likelihoods"],
)
def test_operations_are_those_the_compiler_counts(frozen, teacher):
    config = RunConfig.from_dict(
        {
            "model": {"path": "unused"},
            "data": {"train": "unused", "sequence_length": LENGTH},
            "optimizer": {"lr_multipliers": frozen},
            "teacher": teacher,
            "train": {
                "out": "unused", "steps": 9, "batch_size": ROWS, "dtype": "float32",
                "remat": "none", "loss_chunk": 2 * LENGTH,
            },
        }
    )  # fmt: skip
    decoder, mesh = read_decoder_config(SHAPE), make_mesh(devices=jax.devices()[:1])
    source = read_decoder_config(SHAPE | {"vocab_size": 300})
    known = Teacher(config, source, SimpleNamespace(separator=lambda: 0)) if teacher else None
    model = abstract_model(decoder)
    step = make_train_step(
        nnx.graphdef(model),
        abstract_parameters(model, mesh),
        make_optimizer(config.optimizer, config.train.steps),
        mesh=mesh,
        config=config,
        eos_id=0,
        teacher=known,
    )
    counted = step.cost_analysis()["flops"] / (ROWS * LENGTH)
    expected = step_flops_per_token(model, config, known)
    assert expected == pytest.approx(counted, rel=0.05)
    if not teacher and not frozen:
        assert expected == model.flops_per_token(LENGTH)
