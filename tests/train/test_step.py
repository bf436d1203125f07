import functools
import re
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from clp_jax.config import OptimizerSection, RunConfig
from clp_jax.mesh import make_mesh, shard_batch
from clp_jax.models import abstract_model, abstract_parameters, initialize, read_decoder_config
from clp_jax.train.anomalies import Health
from clp_jax.train.optimizer import make_optimizer
from clp_jax.train.step import (
    document_numbers,
    document_positions,
    initialize_optimizer,
    make_train_step,
)

from ..marks import slow

SIZES = {"n_layer": 2, "n_head": 4}
GPT2 = {"model_type": "gpt2", "vocab_size": 67, "n_embd": 32, "n_positions": 24, **SIZES}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
MODERN = {"hidden_size": 32, "intermediate_size": 48, "vocab_size": 64}
LOCAL, GLOBAL = "sliding_attention", "full_attention"
MODELS = {
    "gpt2": GPT2 | NO_DROPOUT,
    "gpt2 with dropout": GPT2 | {"resid_pdrop": 0.2},
    "wide gpt2": GPT2 | {"n_embd": 256, "vocab_size": 512},
    "bloom": {"model_type": "bloom", "vocab_size": 64, "hidden_size": 32, **SIZES},
    "llama": MODERN
    | {"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4,
       "num_key_value_heads": 2},
    "gemma2": MODERN
    | {"model_type": "gemma2", "num_hidden_layers": 4, "num_attention_heads": 4,
       "num_key_value_heads": 4, "head_dim": 10, "sliding_window": 7,
       "layer_types": [LOCAL, GLOBAL] * 2},
    # Two periods, and one layer more.
    "gemma3": MODERN
    | {"model_type": "gemma3_text", "num_hidden_layers": 5, "num_attention_heads": 4,
       "num_key_value_heads": 1, "head_dim": 10, "sliding_window": 7,
       "layer_types": [LOCAL, GLOBAL, LOCAL, GLOBAL, LOCAL]},
}  # fmt: skip
BATCH, LENGTH, EOS = 8, 24, 5


def run_config(*, masked=False, frozen=(), **train):
    return RunConfig.from_dict(
        {
            "model": {"path": "unused"},
            "data": {
                "train": "unused",
                "sequence_length": LENGTH,
                "document_mask": masked,
                "restart_positions": masked,
            },
            # A bias of keys has no gradient but rounding, which a small epsilon would blow up.
            "optimizer": {
                "learning_rate": 1e-2,
                "weight_decay": 0.1,
                "epsilon": 1e-3,
                "lr_multipliers": dict.fromkeys(frozen, 0),
            },
            "train": {
                "out": "unused",
                "steps": 10,
                "batch_size": BATCH,
                "dtype": "float32",
                "loss_chunk": 7,
                **train,
            },
        }
    )


def batches(vocabulary, count=3):
    """Documents of 1 to 11 tokens; the masks are uneven on purpose: row r counts 3 r positions."""
    random = np.random.default_rng(1)
    mask = np.arange(LENGTH) < 3 * np.arange(1, BATCH + 1)[:, None]
    for _ in range(count):
        tokens = random.integers(vocabulary, size=(BATCH, LENGTH + 1)).astype(np.int32)
        tokens[:, [3, 14, 16]] = EOS
        yield {"tokens": tokens, "mask": mask}


def mesh_of(sizes):
    return make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])


@functools.cache
def new_model(name, dtype):
    return initialize(
        read_decoder_config(MODELS[name]), seed=0, mesh=mesh_of((1, 1, 1)), dtype=dtype
    )


@functools.cache
def train(name, mesh_sizes=(1, 1, 1), **settings):
    """Parameters and metrics after a few steps, and moments of the gradients after the first."""
    config, mesh, hf = run_config(**settings), mesh_of(mesh_sizes), MODELS[name]
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    model = new_model(name, config.train.dtype)
    graphdef, state = nnx.split(model)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_parameters(model, mesh))
    # A copy, since the step donates it.
    params = jax.device_put(jax.tree.map(jnp.copy, nnx.to_pure_dict(state)), shardings)
    step = make_train_step(graphdef, params, optimizer, mesh=mesh, config=config, eos_id=EOS)
    optimizer_state = initialize_optimizer(optimizer, params, mesh)
    history = []
    for index, batch in enumerate(batches(hf["vocab_size"])):
        rows = {name: shard_batch(array, mesh) for name, array in batch.items()}
        params, optimizer_state, metrics = step(params, optimizer_state, np.int32(index), rows)
        history.append(jax.device_get(metrics))
        if index == 0:
            moments = jax.device_get(optimizer_state.updates)
    return jax.device_get(params), history, moments


def assert_close(result, expected, rtol=1e-5, atol=2e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, atol), result, expected)


def assert_same_training(result, expected):
    """Parameters and metrics are close, and moments relative to the largest of their parameter."""
    assert_close(result[:2], expected[:2])
    for ours, theirs in zip(*(jax.tree.leaves(of[2]) for of in (result, expected)), strict=True):
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


ONE_DEVICE_OR_MORE = [
    ("gpt2 with dropout", (2, 2, 2)),
    slow("gpt2 with dropout", (1, 8, 1)),
    slow("bloom", (1, 1, 4)),
    slow("bloom", (2, 2, 2)),
    slow("llama", (1, 2, 4)),  # Each device holds all keys and values.
    slow("llama", (1, 4, 1)),
    slow("llama", (1, 1, 4)),
    slow("llama", (2, 2, 2)),  # And here half of them.
    slow("gemma2", (1, 2, 4)),
    slow("gemma3", (1, 4, 1)),
    slow("gemma3", (1, 1, 4)),
    slow("gemma3", (1, 2, 2, 2)),
]


@pytest.mark.parametrize(("name", "mesh_sizes"), ONE_DEVICE_OR_MORE, ids=str)
def test_every_mesh_computes_what_one_device_does(name, mesh_sizes):
    assert_same_training(train(name, mesh_sizes), train(name))


def test_devices_that_share_a_sequence_exchange_only_keys_and_values():
    config, mesh = run_config(loss_chunk=8), mesh_of((2, 1, 1, 4))
    model = abstract_model(read_decoder_config(MODELS["gpt2"]))
    params = abstract_parameters(model, mesh)
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    program = make_train_step(
        nnx.graphdef(model), params, optimizer, mesh=mesh, config=config, eos_id=EOS
    ).as_text()
    gathered = set(re.findall(r"= f32\[([\d,]*)\]\S* all-gather\(", program))
    assert gathered == {"4,24,4,8"}  # And no hidden states, 4,24,32.


def test_microbatches_of_uneven_masks_add_up_to_the_whole_batch():
    assert_same_training(train("gpt2", (1, 2, 2), gradient_accumulation_steps=4), train("gpt2"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mesh_sizes"),
    [("gpt2", (1, 8, 1)), ("bloom", (2, 2, 2))],
    ids=str,
)
def test_every_mesh_keeps_documents_apart_as_one_device_does(name, mesh_sizes):
    assert_same_training(train(name, mesh_sizes, masked=True), train(name, masked=True))


@pytest.mark.slow
def test_microbatches_without_recomputation_keep_documents_apart():
    microbatches = train(
        "gpt2", (1, 2, 2), masked=True, gradient_accumulation_steps=4, remat="none"
    )
    assert_same_training(microbatches, train("gpt2", masked=True))


def test_loss_is_that_of_each_document_alone():
    model = new_model("gpt2", "float32")
    batch = next(batches(model.config.vocab_size))
    # A document a row; what follows it in its row changes nothing before.
    rows, places = [], []
    for row, mask in zip(batch["tokens"], batch["mask"], strict=True):
        starts = [0, *np.flatnonzero(row[:-1] == EOS), LENGTH]
        for start, end in pairwise(starts):
            rows.append(np.pad(row[start : end + 1], (0, LENGTH - (end - start))))
            places.append(np.pad(mask[start:end], (0, LENGTH - (end - start))))
    tokens = np.stack(rows)
    losses = optax.softmax_cross_entropy_with_integer_labels(
        nnx.jit(model)(jnp.asarray(tokens[:, :-1])), tokens[:, 1:]
    )
    alone = np.asarray(losses)[np.stack(places)].mean()
    np.testing.assert_allclose(train("gpt2", masked=True)[1][0]["loss"], alone, rtol=1e-6)
    assert abs(train("gpt2")[1][0]["loss"] / alone - 1) > 1e-4


@pytest.mark.parametrize("remat", [slow("none"), "attention"])
def test_recomputation_does_not_change_the_numbers(remat):
    assert_same_training(train("gpt2 with dropout", remat=remat), train("gpt2 with dropout"))


@pytest.mark.slow
def test_loss_is_that_of_the_logits():
    model = new_model("bloom", "float32")
    batch = next(batches(model.config.vocab_size))
    logits = np.asarray(nnx.jit(model)(jnp.asarray(batch["tokens"][:, :-1])), np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = batch["tokens"][:, 1:, None]
    losses = -np.take_along_axis(log_probabilities, targets, -1)[..., 0]
    metrics = train("bloom")[1][0]
    np.testing.assert_allclose(metrics["loss"], losses[batch["mask"]].mean(), rtol=1e-5)
    assert metrics["tokens"] == batch["mask"].sum()


@pytest.mark.slow
def test_z_loss_is_reported_apart_from_the_loss_and_moves_the_normalizer():
    history = train("gpt2", z_loss=0.1)[1]
    plain = train("gpt2")[1]
    np.testing.assert_allclose(history[0]["loss"], plain[0]["loss"], rtol=1e-6)
    assert history[0]["gradient_norm"] != plain[0]["gradient_norm"]
    # New weights give small logits, so the normalizer is about the size of the vocabulary.
    np.testing.assert_allclose(
        history[0]["z_loss"], 0.1 * np.log(MODELS["gpt2"]["vocab_size"]) ** 2, rtol=0.05
    )
    assert history[2]["z_loss"] < history[0]["z_loss"]
    assert "z_loss" not in plain[0]


@pytest.mark.slow
def test_bfloat16_computes_on_float32_parameters():
    params, history, _ = train("gpt2", dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    exact = train("gpt2")[1]
    np.testing.assert_allclose(history[0]["loss"], exact[0]["loss"], rtol=1e-2)
    assert history[0]["loss"] != exact[0]["loss"]


@pytest.mark.slow
def test_dropout_follows_the_seed():
    same, other = train("gpt2 with dropout"), train("gpt2 with dropout", seed=1)
    assert other[1][0]["loss"] != same[1][0]["loss"]


@functools.cache
def one_step_taken():
    """The step, parameters and state after it was taken once, and the next batch."""
    config, mesh = run_config(), mesh_of((1, 2, 2))
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    model = initialize(read_decoder_config(MODELS["gpt2"]), seed=0, mesh=mesh)
    graphdef, state = nnx.split(model)
    params = nnx.to_pure_dict(state)
    step = make_train_step(graphdef, params, optimizer, mesh=mesh, config=config, eos_id=EOS)
    first, second = (
        {key: shard_batch(array, mesh) for key, array in batch.items()}
        for batch in batches(MODELS["gpt2"]["vocab_size"], 2)
    )
    state = initialize_optimizer(optimizer, params, mesh)
    return step, *step(params, state, np.int32(0), first)[:2], second


def second_step(change):
    """Parameters and state before and after a second step, which ``change`` makes a bad one."""
    step, params, state, batch = one_step_taken()
    params, state = change(*jax.tree.map(jnp.copy, (params, state)))
    before = jax.device_get((params, state))
    *after, metrics = jax.device_get(step(params, state, np.int32(1), batch))
    return before, tuple(after), metrics


def with_infinity(params, state):
    scale = params["final_norm"]["scale"]
    return params | {"final_norm": params["final_norm"] | {"scale": scale * np.inf}}, state


def with_low_level(params, state):
    health = jax.tree.map(lambda x, y: jax.device_put(y, x.sharding), state.health, LOW_LEVEL)
    return params, state._replace(health=health)


LOW_LEVEL = Health(steps=np.int32(100), log_norm=np.float32(np.log(1e-3)))


@pytest.mark.parametrize(
    ("change", "spike"), [(with_infinity, 0), (with_low_level, 1)], ids=["infinity", "spike"]
)
def test_a_bad_step_changes_nothing_but_the_level_of_the_norms(change, spike):
    before, after, metrics = second_step(change)
    assert (metrics["skipped"], metrics["spike"]) == (1, spike)
    jax.tree.map(np.testing.assert_array_equal, after[0], before[0])
    jax.tree.map(np.testing.assert_array_equal, after[1].updates, before[1].updates)


def test_a_good_step_is_taken():
    before, after, metrics = second_step(lambda params, state: (params, state))
    assert (metrics["skipped"], metrics["spike"]) == (0, 0)
    assert all(
        (old != new).any()
        for old, new in zip(jax.tree.leaves(before[0]), jax.tree.leaves(after[0]), strict=True)
    )


@pytest.mark.slow
def test_group_norms_make_up_the_norm():
    metrics = train("gpt2")[1][0]
    groups = [metrics[f"gradient_norm/{g}"] for g in ("embeddings", "positions", "layers")]
    groups.append(metrics["gradient_norm/final_norm"])
    np.testing.assert_allclose(np.linalg.norm(groups), metrics["gradient_norm"], rtol=1e-6)
    assert "gradient_norm/positions" not in train("bloom")[1][0]


def compiled(name, mesh_sizes=(1, 1, 1), **settings):
    config, mesh = run_config(**settings), mesh_of(mesh_sizes)
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    model = abstract_model(read_decoder_config(MODELS[name]))
    params = abstract_parameters(model, mesh)
    return make_train_step(
        nnx.graphdef(model), params, optimizer, mesh=mesh, config=config, eos_id=EOS
    )


@pytest.mark.parametrize("mesh_sizes", [slow((1, 1, 1)), (1, 2, 4)], ids=str)
def test_parameters_and_optimizer_are_donated_and_spread_over_the_mesh(mesh_sizes):
    model = abstract_model(read_decoder_config(MODELS["wide gpt2"]))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model)))
    share = 3 * 4 * parameters / np.prod(mesh_sizes)
    memory = compiled("wide gpt2", mesh_sizes).memory_analysis()
    assert memory.alias_size_in_bytes == pytest.approx(share, rel=0.05)
    assert memory.argument_size_in_bytes < memory.alias_size_in_bytes + 20_000
    assert memory.output_size_in_bytes < memory.alias_size_in_bytes + 20_000


@pytest.mark.slow
def test_the_more_is_kept_the_more_memory_it_takes():
    model = {"n_embd": 64, "n_layer": 8, "n_positions": 256, "vocab_size": 64}
    graphdef, params = nnx.split(abstract_model(read_decoder_config(MODELS["gpt2"] | model)))
    tokens = jax.ShapeDtypeStruct((4, 256), jnp.int32)

    def compile_gradient(remat):
        def total(params, tokens):
            return nnx.merge(graphdef, params).hidden_states(tokens, remat=remat).sum()

        return jax.jit(jax.grad(total)).lower(params, tokens).compile()

    memory, flops = {}, {}
    for remat in ("full", "attention", "attention_block", "dots", "none"):
        step = compile_gradient(remat)
        memory[remat] = step.memory_analysis().temp_size_in_bytes
        flops[remat] = step.cost_analysis()["flops"]
    assert list(memory.values()) == sorted(memory.values())
    # In arrays as large as a layer's input: attention 1, the products around it 4, the MLP's 4.
    layers = 8 * 4 * 256 * 64 * 4
    kept = {remat: (size - memory["full"]) / layers for remat, size in memory.items()}
    assert kept["attention"] == pytest.approx(1, abs=0.3)
    assert kept["attention_block"] == pytest.approx(5, abs=0.5)
    assert 7 < kept["dots"] < kept["none"] / 1.5
    assert flops["full"] > flops["attention_block"] > flops["dots"]


@pytest.mark.slow
def test_frozen_layers_cost_neither_state_nor_gradients():
    settings = {"remat": "none", "loss_chunk": LENGTH}
    frozen = compiled("wide gpt2", frozen=("layers",), **settings)
    all_ = compiled("wide gpt2", **settings)
    model = abstract_model(read_decoder_config(MODELS["wide gpt2"]))
    layers = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model.blocks)))
    states = [step.memory_analysis().alias_size_in_bytes for step in (all_, frozen)]
    assert states[0] - states[1] == pytest.approx(2 * 4 * layers, rel=0.01)
    # The kernels' gradients are a third of what their products cost; a scanned layer counts once.
    kernels = 12 * 256**2
    saved = [step.cost_analysis()["flops"] for step in (all_, frozen)]
    assert saved[0] - saved[1] > 0.9 * 2 * BATCH * LENGTH * kernels


def test_frozen_parts_stay_and_the_rest_moves_as_usual():
    frozen, history, _ = train("gpt2", frozen=("layers",))
    start = nnx.to_pure_dict(nnx.state(new_model("gpt2", "float32")))
    jax.tree.map(np.testing.assert_array_equal, frozen["blocks"], jax.device_get(start["blocks"]))
    assert "gradient_norm/layers" not in history[0]
    plain = train("gpt2")[1][0]
    for group in ("embeddings", "positions", "final_norm"):
        key = f"gradient_norm/{group}"
        np.testing.assert_allclose(history[0][key], plain[key], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adafactor", "lion", "muon"])
def test_optimizer_lies_as_its_parameters_and_computes_what_one_device_does(name):
    optimizer, results = make_optimizer(OptimizerSection(name=name), 10), []
    for sizes in ((1, 1, 1), (1, 2, 4)):
        mesh = mesh_of(sizes)
        model = initialize(read_decoder_config(MODELS["wide gpt2"]), seed=0, mesh=mesh)
        params = nnx.to_pure_dict(nnx.state(model))
        state = initialize_optimizer(optimizer, params, mesh)
        with jax.set_mesh(mesh):
            updates, state = jax.jit(optimizer.update)(params, state.updates, params, index=0)
        results.append(jax.device_get((updates, state)))
    assert_close(*results, rtol=1e-4, atol=1e-5)
    share = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
    assert share < sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / (
        2 if name == "adafactor" else 7
    )


@pytest.mark.slow
def test_accumulation_saves_memory():
    settings = {"remat": "none", "loss_chunk": LENGTH}
    whole = compiled("gpt2", **settings).memory_analysis().temp_size_in_bytes
    microbatches = (
        compiled("gpt2", gradient_accumulation_steps=8, **settings)
        .memory_analysis()
        .temp_size_in_bytes
    )
    assert microbatches < whole / 2


EOS = 7


@pytest.mark.parametrize(
    ("tokens", "numbers", "positions"),
    [
        ([7, 1, 2, 7, 3], [1, 1, 1, 2, 2], [0, 1, 2, 0, 1]),
        ([1, 2, 3, 7, 3], [0, 0, 0, 1, 1], [0, 1, 2, 0, 1]),
        ([1, 2, 7, 7, 7], [0, 0, 1, 2, 3], [0, 1, 0, 0, 0]),
        ([1, 2, 3, 4, 5], [0, 0, 0, 0, 0], [0, 1, 2, 3, 4]),
    ],
)
def test_an_eos_opens_the_document_that_follows(tokens, numbers, positions):
    batch = jnp.asarray([[1, 1, 7, 1, 1], tokens], jnp.int32)
    np.testing.assert_array_equal(document_numbers(batch, EOS)[1], numbers)
    np.testing.assert_array_equal(document_positions(batch, EOS)[1], positions)
