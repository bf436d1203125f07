"""The counted operations of a step are those of the compiled program."""

import jax
import pytest
from flax import nnx

from clp_jax.checkpoint.hub import load_tokenizer
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
    "model_type": "gpt2", "vocab_size": 2000, "n_embd": 256, "n_layer": 1, "n_head": 4,
    "n_positions": 2 * LENGTH, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
}  # fmt: skip
BODY = {"layers": 0, "positions": 0, "final_norm": 0}
LESSONS = {"hidden_states": 1}


def run_config(frozen, teacher=()):
    return RunConfig.from_dict(
        {
            "model": {"path": "unused"},
            "data": {"train": "unused", "sequence_length": LENGTH},
            "optimizer": {"lr_multipliers": frozen},
            "teacher": {"path": "unused", **teacher} if teacher else {},
            "train": {
                "out": "unused", "steps": 9, "batch_size": ROWS, "dtype": "float32",
                "remat": "none", "loss_chunk": 2 * LENGTH,
            },
        }
    )  # fmt: skip


@pytest.fixture
def teacher_of(tiny_tokenizer):
    """The teacher of a run, which has the layers of the model and 300 tokens."""

    def make(config, shape):
        source = read_decoder_config(shape | {"vocab_size": 300})
        return Teacher(config, source, load_tokenizer(tiny_tokenizer))

    return make


@pytest.mark.parametrize(
    ("frozen", "lessons"),
    [({"embeddings": 0}, ()), (BODY, LESSONS)],
    ids=["body", "taught embeddings"],
)
def test_operations_are_those_the_compiler_counts(frozen, lessons, teacher_of):
    config, mesh = run_config(frozen, lessons), make_mesh(devices=jax.devices()[:1])
    teacher = teacher_of(config, SHAPE) if lessons else None
    model = abstract_model(read_decoder_config(SHAPE))
    step = make_train_step(
        nnx.graphdef(model),
        abstract_parameters(model, mesh),
        make_optimizer(config.optimizer, config.train.steps),
        mesh=mesh,
        config=config,
        eos_id=0,
        teacher=teacher,
    )
    counted = step.cost_analysis()["flops"] / (ROWS * LENGTH)
    assert step_flops_per_token(model, config, teacher) == pytest.approx(counted, rel=0.05)


def test_a_step_that_trains_everything_and_one_that_ends_early(teacher_of):
    shape = SHAPE | {"n_layer": 3}
    model = abstract_model(read_decoder_config(shape))
    assert step_flops_per_token(model, run_config({}), None) == model.flops_per_token(LENGTH)
    kernels, head = 12 * 256**2, 2000 * 256
    early = run_config(BODY, {"next_token": 0, "layer": 1})
    own = 4 * kernels + 12 * LENGTH / 2 * 256
    source = 2 * kernels + 4 * LENGTH * 256
    found = step_flops_per_token(model, early, teacher_of(early, shape))
    assert found == own + 2 * source
    likely = run_config(BODY, {"next_token": 0, "hidden_states": 0, "likelihoods": 1})
    found = step_flops_per_token(model, likely, teacher_of(likely, shape))
    assert found == 3 * (own + 2 * source) + (6 + 2) * head + 2 * 2 * 300 * 256
