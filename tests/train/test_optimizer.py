import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from pydantic import ValidationError

from clp_jax.config import OptimizerSection
from clp_jax.errors import UserError
from clp_jax.train.optimizer import (
    GROUPS,
    is_decayed,
    layer_factors,
    learning_rate_schedule,
    make_optimizer,
)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_schedule_rises_from_zero_to_the_peak_and_ends_at_the_final_ratio(schedule):
    end = {} if schedule == "constant" else {"min_lr_ratio": 0.2}
    section = OptimizerSection(learning_rate=0.5, schedule=schedule, warmup_steps=4, **end)
    rate = learning_rate_schedule(section, 20)
    np.testing.assert_allclose([rate(i) for i in range(4)], [0.125, 0.25, 0.375, 0.5], rtol=1e-6)
    last = 0.5 if schedule == "constant" else 0.1
    np.testing.assert_allclose(rate(19), last, rtol=1e-6)
    middle = {"cosine": 0.3, "linear": 0.3, "constant": 0.5}[schedule]
    np.testing.assert_allclose(rate(11), middle, rtol=1e-6)


def test_schedule_without_warmup_starts_near_the_peak():
    rate = learning_rate_schedule(OptimizerSection(learning_rate=1.0, schedule="linear"), 10)
    np.testing.assert_allclose([rate(0), rate(9)], [0.91, 0.1], rtol=1e-6)


def test_restarts_repeat_the_fall():
    section = OptimizerSection(learning_rate=1.0, warmup_steps=2, restarts=2, min_lr_ratio=0.1)
    rates = [float(learning_rate_schedule(section, 20)(index)) for index in range(20)]
    once = OptimizerSection(learning_rate=1.0, min_lr_ratio=0.1)
    fall = [float(learning_rate_schedule(once, 6)(index)) for index in range(6)]
    np.testing.assert_allclose(rates, [0.5, 1.0, *fall, *fall, *fall], rtol=1e-6)


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
    shapes = {"kernel": (4, 3), "bias": (2, 3)}
    params = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
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
    ours = {"final_norm": jax.tree.map(jnp.asarray, params)}
    state = optimizer.init(ours)
    for index, gradient in enumerate(gradients):
        updates, state = optimizer.update({"final_norm": gradient}, state, ours, index=index)
        ours = optax.apply_updates(ours, updates)
        for name, p in theirs.items():
            p.grad = torch.tensor(gradient[name])
        torch.nn.utils.clip_grad_norm_(theirs.values(), section.clip_norm)
        for group in adamw.param_groups:
            group["lr"] = float(rate(index))
        adamw.step()
        for name, p in theirs.items():
            np.testing.assert_allclose(
                ours["final_norm"][name], p.detach().numpy(), rtol=1e-5, atol=1e-7
            )


def random_parameters(seed, layers=2):
    """In the layout of the models: stacked layers, and an axis for each head."""
    shapes = {
        "token_embedding": {"embedding": (11, 8)},
        "blocks": {
            "attention": {
                "qkv": {"kernel": (layers, 8, 3, 2, 4)},
                "out": {"kernel": (layers, 2, 4, 8)},
            },
            "mlp": {"up": {"kernel": (layers, 8, 16), "bias": (layers, 16)}},
        },
        "final_norm": {"scale": (8,)},
    }
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(random.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def one_by_one(params):
    """The same as matrices and vectors, one for each layer and for queries, keys and values."""
    flat = {
        "embedding": params["token_embedding"]["embedding"],
        "scale": params["final_norm"]["scale"],
    }
    blocks = params["blocks"]
    for layer in range(2):
        for name, part in zip("qkv", range(3), strict=True):
            kernel = blocks["attention"]["qkv"]["kernel"][layer, :, part]
            flat[f"kernel {name} {layer}"] = kernel.reshape(8, 8)
        flat[f"kernel out {layer}"] = blocks["attention"]["out"]["kernel"][layer].reshape(8, 8)
        flat[f"kernel up {layer}"] = blocks["mlp"]["up"]["kernel"][layer]
        flat[f"bias {layer}"] = blocks["mlp"]["up"]["bias"][layer]
    return {name: np.asarray(array) for name, array in flat.items()}


STEPS = 6
SETTINGS = {"learning_rate": 0.01, "weight_decay": 0.1, "clip_norm": 1e6, "schedule": "constant"}


def after_steps(section, steps=STEPS):
    """The parameters and the optimizer's state after a few steps."""
    optimizer, params = make_optimizer(section, STEPS), random_parameters(0)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for index in range(steps):
        updates, state = update(random_parameters(index + 1), state, params, index=index)
        params = params | optax.apply_updates({part: params[part] for part in updates}, updates)
    return params, state


def decayed(name):
    return not name.startswith(("bias", "scale"))


def by_optax(optimizer):
    params = one_by_one(random_parameters(0))
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for index in range(STEPS):
        updates, state = update(one_by_one(random_parameters(index + 1)), state, params)
        params = optax.apply_updates(params, updates)
    return params


def assert_equal_one_by_one(params, expected):
    for name, array in one_by_one(params).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


def decay_mask(params):
    return {name: decayed(name) for name in params}


def test_lion_is_that_of_optax():
    section = OptimizerSection(name="lion", beta1=0.8, beta2=0.95, **SETTINGS)
    lion = optax.lion(0.01, 0.8, 0.95, weight_decay=0.1, mask=decay_mask)
    assert_equal_one_by_one(after_steps(section)[0], by_optax(lion))


def test_muon_makes_each_matrix_of_each_layer_orthogonal_and_leaves_the_rest_to_adamw():
    section = OptimizerSection(name="muon", **SETTINGS)
    muon = optax.contrib.muon(0.01, eps=section.epsilon, weight_decay=0.1, consistent_rms=0.2)
    adamw = optax.adamw(0.01, section.beta1, section.beta2, weight_decay=0.1, mask=decay_mask)
    orthogonal, rest = by_optax(muon), by_optax(adamw)
    expected = {name: (orthogonal if "kernel" in name else rest)[name] for name in rest}
    assert_equal_one_by_one(after_steps(section)[0], expected)


def test_adafactor_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    section = OptimizerSection(name="adafactor", **SETTINGS)
    theirs = {
        name: torch.nn.Parameter(torch.tensor(array))
        for name, array in one_by_one(random_parameters(0)).items()
    }
    groups = [{"params": [p], "weight_decay": 0.1 * decayed(name)} for name, p in theirs.items()]
    adafactor = torch.optim.Adafactor(groups, lr=0.01)
    for index in range(STEPS):
        for name, gradient in one_by_one(random_parameters(index + 1)).items():
            theirs[name].grad = torch.tensor(gradient)
        adafactor.step()
    expected = {name: p.detach().numpy() for name, p in theirs.items()}
    assert_equal_one_by_one(after_steps(section)[0], expected)


def test_adafactor_keeps_two_vectors_for_a_matrix():
    state = after_steps(OptimizerSection(name="adafactor", **SETTINGS), 1)[1]
    sizes = {leaf.shape for leaf in jax.tree.leaves(state) if leaf.ndim == 5}
    assert sizes == {(2, 8, 3, 1, 1), (2, 1, 3, 2, 4)}


@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_mu_dtype_halves_the_mean_of_the_gradients(name):
    def size(dtype):
        state = make_optimizer(OptimizerSection(name=name, mu_dtype=dtype), STEPS).init(
            random_parameters(0)
        )
        means = [
            leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(state)
            if ".mu" in jax.tree_util.keystr(path)
        ]
        assert {leaf.dtype for leaf in means} == {jnp.dtype(dtype)}
        return sum(leaf.nbytes for leaf in means)

    count = sum(leaf.size for leaf in jax.tree.leaves(random_parameters(0)))
    assert (size("float32"), size("bfloat16")) == (4 * count, 2 * count)


def updates(section, *indices, layers=2):
    """What is added to the parameters, if the first step has one of these indices."""
    optimizer, params = make_optimizer(section, 10), random_parameters(0, layers)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    return [update(random_parameters(1, layers), state, params, index=i)[0] for i in indices]


def changes(section, *indices):
    """How far each part of the model moves at steps, as a share of how far it does by default."""
    moved, by_default = (updates(s, *indices) for s in (section, OptimizerSection(**SETTINGS)))
    return [
        {part: jax.tree.leaves(one[part])[0] / jax.tree.leaves(other[part])[0] for part in one}
        for one, other in zip(moved, by_default, strict=True)
    ]


def test_groups_have_rates_of_their_own():
    section = OptimizerSection(lr_multipliers={"layers": 0.1, "final_norm": 3.0}, **SETTINGS)
    (moved,) = changes(section, 0)
    for part, factor in {"token_embedding": 1, "blocks": 0.1, "final_norm": 3}.items():
        np.testing.assert_allclose(moved[part], factor, rtol=1e-5)


def test_frozen_groups_have_no_state_and_do_not_decay():
    params, state = after_steps(OptimizerSection(lr_multipliers={"layers": 0}, **SETTINGS))
    before = random_parameters(0)
    jax.tree.map(np.testing.assert_array_equal, params["blocks"], before["blocks"])
    assert (params["token_embedding"]["embedding"] != before["token_embedding"]["embedding"]).all()
    assert {leaf.shape for leaf in jax.tree.leaves(state)} == {(), (11, 8), (8,)}


def test_embeddings_first_then_the_rest_warms_up():
    section = OptimizerSection(embeddings_only_steps=4, warmup_steps=2, **SETTINGS)
    warmed = OptimizerSection(warmup_steps=2, **SETTINGS)
    assert learning_rate_schedule(section, 10)(9) == learning_rate_schedule(warmed, 10)(9)
    shares = {1: 0, 3: 0, 4: 0.5, 5: 1, 9: 1}
    for moved, expected in zip(changes(section, *shares), shares.values(), strict=True):
        np.testing.assert_allclose(moved["blocks"], expected, rtol=1e-5)
        np.testing.assert_allclose(moved["final_norm"], expected, rtol=1e-5)
        np.testing.assert_allclose(moved["token_embedding"], 1, rtol=1e-5)


def test_embeddings_first_must_end_before_the_run():
    with pytest.raises(UserError, match=r"optimizer.embeddings_only_steps is 9.*train.steps, 9"):
        make_optimizer(OptimizerSection(embeddings_only_steps=9), 9)


def test_layers_in_the_middle_change_the_least():
    np.testing.assert_allclose(layer_factors(5, 0.5), [1, 0.5, 0.25, 0.5, 1])
    np.testing.assert_allclose(layer_factors(4, 0.5), [1, 0.5, 0.5, 1])
    moved = [
        updates(OptimizerSection(layer_decay=decay, **SETTINGS), 0, layers=3)[0]
        for decay in (0.5, 1.0)
    ]
    for leaf, plain in zip(*(jax.tree.leaves(tree["blocks"]) for tree in moved), strict=True):
        for layer, factor in enumerate((1, 0.5, 1)):
            np.testing.assert_allclose(leaf[layer], factor * plain[layer], rtol=1e-6)
    np.testing.assert_array_equal(moved[0]["final_norm"]["scale"], moved[1]["final_norm"]["scale"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_multipliers": {"layers": -1}}, "greater than or equal to 0"),
        ({"lr_multipliers": dict.fromkeys(GROUPS.values(), 0)}, "lr_multipliers freeze everything"),
        ({"lr_multipliers": {"heads": 1}}, "'embeddings', 'positions', 'layers' or 'final_norm'"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        OptimizerSection(**settings)
