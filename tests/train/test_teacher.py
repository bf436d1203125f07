"""New embeddings that learn from the source of the transfer."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from clp_jax import train_model
from clp_jax.checkpoint.hf import load_model, save_model
from clp_jax.config import RunConfig
from clp_jax.data.corpus.store import write_corpus
from clp_jax.errors import UserError
from clp_jax.mesh import make_mesh, shard_batch, single_device_mesh
from clp_jax.models import initialize, read_decoder_config
from clp_jax.train.metrics import read_metrics
from clp_jax.train.optimizer import make_optimizer
from clp_jax.train.step import initialize_optimizer, make_train_step
from clp_jax.train.teacher import open_teacher

from .conftest import CONFIG, sentences, write_model_files

LENGTH, BATCH, T = 16, 8, 100.0
FROZEN = {"layers": 0, "positions": 0, "final_norm": 0}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A source, the same layers with another tokenizer and new rows, and a corpus."""
    folder = tmp_path_factory.mktemp("pair")
    shape = CONFIG | {
        "n_positions": 2 * LENGTH,
        "attn_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
    }
    english = [f"The cat sees {i} dogs and the mouse hears a cow." for i in range(50)]
    models = {}
    for name, texts, rows in (("source", english, 304), ("model", None, 320)):
        (folder / f"{name}-files").mkdir()
        config = shape | {"vocab_size": rows}
        tokenizer = write_model_files(folder / f"{name}-files", config, texts)
        seed = {"source": 1, "model": 2}[name]
        models[name] = initialize(read_decoder_config(config), seed=seed, mesh=single_device_mesh())
    own = nnx.to_pure_dict(nnx.state(models["source"]))
    new = nnx.to_pure_dict(nnx.state(models["model"]))
    rows = new["token_embedding"]
    nnx.update(models["model"], own | {"token_embedding": rows})
    for name, model in models.items():
        save_model(model, folder / name, origin=folder / f"{name}-files")
    write_corpus(sentences(60, 0), tokenizer, folder / "corpus")
    return folder


def settings(pair, out="none", teacher=(), **train):
    return {
        "model": {"path": str(pair / "model")},
        "data": {"train": str(pair / "corpus"), "sequence_length": LENGTH},
        "optimizer": {"learning_rate": 0.01, "epsilon": 1e-3, "lr_multipliers": FROZEN},
        "teacher": {"path": str(pair / "source"), **dict(teacher)},
        "train": {
            "out": str(out),
            "steps": 8,
            "batch_size": BATCH,
            "dtype": "float32",
            "loss_chunk": 5,
            "log_every": 1,
            "remat": "none",
            **train,
        },
    }


def random_batch():
    """Rows with documents, cut off at the end, and partners in ascending order."""
    random = np.random.default_rng(0)
    tokens = random.integers(1, 300, (BATCH, LENGTH + 1)).astype(np.int32)
    tokens[:, 7] = 0
    positions = np.full((BATCH, LENGTH + 1), -1, np.int32)
    for row in positions:
        places = np.sort(random.choice(LENGTH + 1, 5, replace=False))
        row[places] = np.sort(random.choice(2 * LENGTH, 5, replace=False))
    positions[:, 7] = -1
    mask = np.arange(LENGTH) < 8 + np.arange(BATCH)[:, None]
    positions[:, 1:][~mask] = -1
    source = random.integers(1, 300, (BATCH, 2 * LENGTH)).astype(np.int32)
    return {"tokens": tokens, "mask": mask, "source_tokens": source, "positions": positions}


def losses_of(model, tokens):
    logits = jax.nn.log_softmax(model(tokens)[:, :-1])
    return -jnp.take_along_axis(logits, tokens[:, 1:, None], axis=2)[..., 0]


def slow_loss(model, source, batch, positions, section):
    """The formulas position by position and stretch by stretch; and the sums of each term."""
    tokens, mask = batch["tokens"], batch["mask"]
    ours, theirs = losses_of(model, tokens), losses_of(source, batch["source_tokens"])
    hidden, known = model.hidden_states(tokens), source.hidden_states(batch["source_tokens"])
    next_token = jnp.sum(jnp.where(mask, ours, 0))
    states, likelihoods, counts = 0.0, 0.0, [0, 0]
    for row in range(BATCH):
        aligned = [i for i in range(LENGTH + 1) if positions[row, i] >= 0]
        for i in aligned:
            if i == LENGTH:
                continue
            wanted = known[row, positions[row, i]]
            states += jnp.sum((hidden[row, i] - wanted) ** 2) / jnp.sum(wanted**2)
            counts[0] += 1
        for before, after in pairwise(aligned):
            if before < 7 <= after:
                continue
            q = jnp.exp(-ours[row, before:after].sum() / T)
            p = jnp.exp(-theirs[row, positions[row, before] : positions[row, after]].sum() / T)
            likelihoods += p * jnp.log(p / q) + (1 - p) * jnp.log((1 - p) / (1 - q))
            counts[1] += 1
    total = (
        section["next_token"] * next_token
        + section["hidden_states"] * states
        + section["likelihoods"] * likelihoods
    )
    return total / mask.sum(), (
        next_token / mask.sum(),
        states / counts[0],
        likelihoods / counts[1],
    )


WEIGHTS = {"next_token": 0.5, "hidden_states": 2.0, "likelihoods": 300.0}


@pytest.fixture(scope="module")
def slow(pair):
    """The terms, the gradients and the new rows of a step by the slow formulas."""
    config, batch = RunConfig.from_dict(settings(pair, teacher=WEIGHTS)), random_batch()
    own, known = (load_model(pair / name) for name in ("model", "source"))
    graphdef, params = nnx.split(own)
    params, arrays = nnx.to_pure_dict(params), jax.tree.map(jnp.asarray, batch)

    def of_rows(rows):
        model = nnx.merge(graphdef, params | {"token_embedding": rows})
        return slow_loss(model, known, arrays, batch["positions"], WEIGHTS)

    (_, terms), gradients = jax.value_and_grad(of_rows, has_aux=True)(params["token_embedding"])
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    free = {"token_embedding": gradients}
    updates, _ = optimizer.update(free, optimizer.init(params), params, index=jnp.int32(0))
    rows = optax.apply_updates(params["token_embedding"], updates["token_embedding"])
    return terms, optax.tree_utils.tree_norm(gradients), rows


@pytest.mark.parametrize(("sizes", "accumulation"), [((1, 1, 1), 1), ((2, 2, 2), 2)])
def test_a_step_equals_the_slow_formulas(pair, slow, sizes, accumulation):
    config = RunConfig.from_dict(
        settings(pair, teacher=WEIGHTS, gradient_accumulation_steps=accumulation)
    )
    mesh = make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])
    model = load_model(pair / "model", mesh=mesh)
    teacher = open_teacher(config, model.config)
    graphdef, params = nnx.split(model)
    params = nnx.to_pure_dict(params)
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    step = make_train_step(
        graphdef, params, optimizer, mesh=mesh, config=config, eos_id=0, teacher=teacher
    )
    rows = {name: shard_batch(array, mesh) for name, array in random_batch().items()}
    rows["teacher"] = teacher.embeddings(params, mesh)
    state = initialize_optimizer(optimizer, params, mesh)
    found, _, metrics = step(params, state, np.int32(0), rows)
    terms, norm, expected = slow
    names = "loss", "teacher/hidden_states", "teacher/likelihoods"
    np.testing.assert_allclose([metrics[name] for name in names], terms, rtol=1e-3)
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-3)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
        jax.device_get(found["token_embedding"]),
        jax.device_get(expected),
    )


def test_the_source_teaches_and_the_layers_stay(pair, tmp_path):
    config = settings(pair, tmp_path / "run", {"next_token": 0})
    train_model(RunConfig.from_dict(config))
    lines = [line for line in read_metrics(tmp_path / "run") if "train/loss" in line]
    errors = [line["train/teacher/hidden_states"] for line in lines]
    assert errors[-1] < 0.9 * errors[0]
    assert min(line["train/teacher/aligned"] for line in lines) > 0.3
    before = nnx.to_pure_dict(nnx.state(load_model(pair / "model")))
    after = nnx.to_pure_dict(nnx.state(load_model(tmp_path / "run")))
    assert np.abs(
        after.pop("token_embedding")["embedding"] - before.pop("token_embedding")["embedding"]
    ).max()
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_layers_must_be_frozen(pair):
    config = settings(pair)
    config["optimizer"]["lr_multipliers"] = {"layers": 0}
    with pytest.raises(UserError, match=r"lr_multipliers to \{positions: 0, final_norm: 0}"):
        RunConfig.from_dict(config)


def test_another_model_cannot_teach(pair, tmp_path):
    decoder = read_decoder_config(CONFIG | {"n_layer": 1})
    with pytest.raises(UserError, match="differ in more than the vocabulary"):
        open_teacher(RunConfig.from_dict(settings(pair)), decoder)
    source = load_model(pair / "source")
    source.final_norm.scale[...] = 2 * source.final_norm.scale[...]
    save_model(source, tmp_path / "other", origin=pair / "source")
    config = RunConfig.from_dict(settings(pair, teacher={"path": str(tmp_path / "other")}))
    teacher = open_teacher(config, source.config)
    params = nnx.to_pure_dict(nnx.state(load_model(pair / "model")))
    with pytest.raises(UserError, match="does not have the layers of"):
        teacher.embeddings(params, single_device_mesh())
