import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clp_jax.config import OptimizerSection
from clp_jax.errors import UserError
from clp_jax.train.optimizer import is_decayed, learning_rate_schedule, make_optimizer


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_schedule_rises_from_zero_to_the_peak_and_ends_at_the_final_ratio(schedule):
    section = OptimizerSection(
        learning_rate=0.5, schedule=schedule, warmup_steps=4, final_ratio=0.2
    )
    rate = learning_rate_schedule(section, 20)
    np.testing.assert_allclose([rate(i) for i in range(4)], [0.125, 0.25, 0.375, 0.5], rtol=1e-6)
    last = 0.5 if schedule == "constant" else 0.1
    np.testing.assert_allclose(rate(19), last, rtol=1e-6)
    middle = {"cosine": 0.3, "linear": 0.3, "constant": 0.5}[schedule]
    np.testing.assert_allclose(rate(11), middle, rtol=1e-6)


def test_schedule_without_warmup_starts_near_the_peak():
    rate = learning_rate_schedule(OptimizerSection(learning_rate=1.0, schedule="linear"), 10)
    np.testing.assert_allclose([rate(0), rate(9)], [0.91, 0.1], rtol=1e-6)


def test_warmup_longer_than_the_run_is_refused():
    with pytest.raises(UserError, match=r"optimizer.warmup_steps is 20.*train.steps, 20"):
        make_optimizer(OptimizerSection(warmup_steps=20), 20)


def test_stacked_biases_and_scales_are_not_decayed():
    params = {
        "blocks": {"mlp": {"kernel": 1.0, "bias": 1.0}, "norm": {"scale": 1.0, "bias": 1.0}},
        "embedding": 1.0,
    }
    assert is_decayed(params) == {
        "blocks": {"mlp": {"kernel": True, "bias": False}, "norm": {"scale": False, "bias": False}},
        "embedding": True,
    }


@pytest.mark.parametrize("clip_norm", [0.5, 1e6])
def test_updates_equal_those_of_pytorch(clip_norm):
    torch = pytest.importorskip("torch")
    section = OptimizerSection(
        learning_rate=0.01, warmup_steps=3, weight_decay=0.1, clip_norm=clip_norm
    )
    random = np.random.default_rng(0)
    params = {
        "kernel": random.normal(size=(4, 3)).astype(np.float32),
        "bias": random.normal(size=(2, 3)).astype(np.float32),
    }
    gradients = [
        {name: random.normal(size=p.shape).astype(np.float32) for name, p in params.items()}
        for _ in range(8)
    ]

    theirs = {name: torch.nn.Parameter(torch.tensor(p)) for name, p in params.items()}
    groups = [
        {"params": [theirs["kernel"]], "weight_decay": section.weight_decay},
        {"params": [theirs["bias"]], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, betas=(section.beta1, section.beta2), eps=section.epsilon)
    rate = learning_rate_schedule(section, len(gradients))

    optimizer = make_optimizer(section, len(gradients))
    ours = jax.tree.map(jnp.asarray, params)
    state = optimizer.init(ours)
    for index, gradient in enumerate(gradients):
        updates, state = optimizer.update(
            jax.tree.map(jnp.asarray, gradient), state, ours, index=index
        )
        ours = optax.apply_updates(ours, updates)
        for name, p in theirs.items():
            p.grad = torch.tensor(gradient[name])
        torch.nn.utils.clip_grad_norm_(theirs.values(), section.clip_norm)
        for group in adamw.param_groups:
            group["lr"] = float(rate(index))
        adamw.step()
        for name, p in theirs.items():
            np.testing.assert_allclose(ours[name], p.detach().numpy(), rtol=1e-5, atol=1e-7)
