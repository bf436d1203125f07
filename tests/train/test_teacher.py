"""New embeddings that learn from the source of the transfer."""

import shutil
from itertools import pairwise

import jax
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from clp_jax import train_model
from clp_jax.checkpoint.hf import load_model, save_model
from clp_jax.checkpoint.hub import ORIGINS
from clp_jax.config import RunConfig
from clp_jax.data.corpus.store import Corpus, write_corpus
from clp_jax.errors import UserError
from clp_jax.mesh import make_mesh, shard_batch, single_device_mesh
from clp_jax.models import initialize, read_decoder_config
from clp_jax.train.inputs import read_decoder
from clp_jax.train.metrics import read_metrics
from clp_jax.train.optimizer import make_optimizer
from clp_jax.train.run_folder import find_run
from clp_jax.train.step import initialize_optimizer, make_train_step
from clp_jax.train.teacher import Teacher, open_teacher

from ..marks import slow
from .conftest import CONFIG, on_step, sentences, write_model_files

LENGTH, BATCH, T = 16, 8, 100.0
FROZEN = {"layers": 0, "positions": 0, "final_norm": 0}
TOKENS, PADDING = np.split(np.arange(320), [300])
COPIED, MADE = TOKENS[TOKENS % 5 == 0], TOKENS[TOKENS % 5 > 0]


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
    np.savez_compressed(folder / "model" / ORIGINS, copied=COPIED, combined=MADE, padding=PADDING)
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


def losses_of(logits, tokens):
    return -logits.log_softmax(-1)[:, :-1].gather(2, tokens[:, 1:, None])[..., 0]


def slow_terms(pair, batch, layer):
    """The terms position by position and stretch by stretch, by transformers in float64.

    Sums, the numbers of what they add up, and what gives the gradient of the new model's rows.
    """
    models = {
        name: transformers.AutoModelForCausalLM.from_pretrained(pair / name).double()
        for name in ("model", "source")
    }
    tokens, read = (torch.tensor(batch[name]).long() for name in ("tokens", "source_tokens"))
    mask, positions = batch["mask"], batch["positions"]
    own = models["model"](tokens, output_hidden_states=True)
    with torch.no_grad():
        known = models["source"](read, output_hidden_states=True)
    ours, theirs = losses_of(own.logits, tokens), losses_of(known.logits, read)
    states, taught = own.hidden_states[layer], known.hidden_states[layer]
    errors, divergences = [], []
    for row in range(BATCH):
        aligned = [i for i in range(LENGTH + 1) if positions[row, i] >= 0]
        for i in aligned:
            wanted = taught[row, positions[row, i]]
            if i < LENGTH:
                errors.append(((states[row, i] - wanted) ** 2).sum() / (wanted**2).sum())
        for before, after in pairwise(aligned):
            if not before < 7 <= after:
                q = torch.exp(-ours[row, before:after].sum() / T)
                spelled = slice(positions[row, before], positions[row, after])
                p = torch.exp(-theirs[row, spelled].sum() / T)
                divergences.append(p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())
    sums = {
        "next_token": ours[torch.tensor(mask)].sum(),
        "hidden_states": sum(errors),
        "likelihoods": sum(divergences),
    }
    counts = {
        "next_token": mask.sum(),
        "hidden_states": len(errors),
        "likelihoods": len(divergences),
    }
    return sums, counts, models["model"].transformer.wte.weight


ALL = {"next_token": 0.5, "hidden_states": 2.0, "likelihoods": 300.0}
STATES = {"next_token": 0, "hidden_states": 1.0}
LIKELIHOODS = {"next_token": 0, "hidden_states": 0, "likelihoods": 1.0}
ONE, EIGHT = (1, 1, 1), (2, 2, 2)
METRICS = {
    "next_token": "loss",
    "hidden_states": "teacher/hidden_states",
    "likelihoods": "teacher/likelihoods",
}


@pytest.mark.parametrize(
    ("section", "sizes", "train", "error"),
    [
        slow(ALL, ONE, {}, 1e-3),
        (ALL | {"layer": 1}, EIGHT, {"gradient_accumulation_steps": 2}, 1e-3),
        slow(STATES | {"layer": 1}, ONE, {}, 1e-3),
        slow(LIKELIHOODS, EIGHT, {"dtype": "bfloat16"}, 2e-2),
    ],
    ids=["all", "all, an inner layer", "an inner layer alone", "likelihoods in bfloat16"],
)
def test_a_step_equals_the_slow_formulas(pair, section, sizes, train, error):
    values = settings(pair, teacher=section, **train)
    # So a row's update is its gradient g as g / (|g| + 1).
    values["optimizer"] |= {"learning_rate": 1, "epsilon": 1, "weight_decay": 0}
    values["optimizer"] |= {"clip_norm": 1e6, "schedule": "constant"}
    config, batch = RunConfig.from_dict(values), random_batch()
    mesh = make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])
    model = load_model(pair / "model", mesh=mesh, compute_dtype=config.train.dtype)
    teacher = open_teacher(config, model.config)
    graphdef, params = nnx.split(model)
    params = nnx.to_pure_dict(params)
    before = np.array(params["token_embedding"]["embedding"])
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    step = make_train_step(
        graphdef, params, optimizer, mesh=mesh, config=config, eos_id=0, teacher=teacher
    )
    rows = {name: shard_batch(array, mesh) for name, array in batch.items()}
    rows["teacher"] = teacher.embeddings(params, mesh)
    state = initialize_optimizer(optimizer, params, mesh)
    found, _, metrics = step(params, state, np.int32(0), rows)
    change = before - np.asarray(found["token_embedding"]["embedding"])
    gradient = change / (1 - np.abs(change))

    sums, counts, weight = slow_terms(pair, batch, section.get("layer", 2))
    objective = sum(getattr(config.teacher, name) * term for name, term in sums.items())
    (objective / int(counts["next_token"])).backward()
    expected = weight.grad.numpy()
    used = {name for name in sums if getattr(config.teacher, name)}
    used |= {"next_token"} if section != STATES | {"layer": 1} else set()
    assert {name for name in METRICS if METRICS[name] in metrics} == used
    for name in used:
        assert metrics[METRICS[name]] == pytest.approx(
            float(sums[name].detach() / counts[name]), rel=error
        )
    assert np.linalg.norm(gradient - expected) < error * np.linalg.norm(expected)


def embeddings_of(folder):
    return np.asarray(load_model(folder).token_embedding.embedding[...])


def test_the_source_teaches_new_rows_and_all_else_stays(pair, tmp_path):
    config = settings(pair, tmp_path / "run", {"next_token": 0, "layer": 1})
    config["optimizer"]["new_rows_only"] = True
    train_model(RunConfig.from_dict(config))
    lines = read_metrics(tmp_path / "run")
    taught = [line for line in lines if "train/teacher/hidden_states" in line]
    errors = [line["train/teacher/hidden_states"] for line in taught]
    assert errors[-1] < 0.9 * errors[0]
    assert min(line["train/teacher/aligned"] for line in taught) > 0.3
    assert not any("train/loss" in line for line in lines)
    before = nnx.to_pure_dict(nnx.state(load_model(pair / "model")))
    after = nnx.to_pure_dict(nnx.state(load_model(tmp_path / "run")))
    old, new = (np.asarray(x.pop("token_embedding")["embedding"]) for x in (before, after))
    jax.tree.map(np.testing.assert_array_equal, after, before)
    np.testing.assert_array_equal(new[COPIED], old[COPIED])

    corpus = Corpus.open(pair / "corpus")
    seen = np.zeros(len(old), bool)
    windows = [corpus.window(i, LENGTH) for i in range(corpus.windows(LENGTH))]
    for tokens, mask in windows:
        seen[[tokens[0], *tokens[1:][mask]]] = True
    made = np.isin(np.arange(len(old)), MADE)
    (counted,) = [line for line in lines if "embeddings/touched" in line]
    assert counted["embeddings/touched"] == (made & seen).sum() > 15
    assert counted["embeddings/untouched"] == (made & ~seen).sum() > 100
    assert np.abs(new - old)[made].max(axis=1).all()
    moved = np.linalg.norm((new - old)[made & seen], axis=1).mean()
    assert 0.1 * moved < np.linalg.norm((new - old)[made & ~seen], axis=1).mean() < 2 * moved
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert f"| new rows | {(made & seen).sum()} are in the text; the other" in card


class Killed(BaseException):
    pass


def kill(batch):
    raise Killed


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_one_that_is_not(pair, tmp_path, monkeypatch):
    config = settings(pair, tmp_path / "run", steps=4, checkpoint_every=2)
    train_model(RunConfig.from_dict(config))
    config["train"]["out"] = str(tmp_path / "killed")
    with monkeypatch.context() as patched:
        on_step(patched, 3, kill)
        with pytest.raises(Killed):
            train_model(RunConfig.from_dict(config))
    other = config | {"model": {"path": str(pair / "source")}}
    with pytest.raises(UserError, match="compares with them at its end: restore the old ones"):
        train_model(RunConfig.from_dict(other), resume=True)
    config["teacher"]["path"] = str(shutil.copytree(pair / "source", tmp_path / "moved"))
    file = tmp_path / "moved" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=r"weights than those in .*moved, and learns from them"):
        train_model(RunConfig.from_dict(config), resume=True)
    file.write_bytes(whole)
    train_model(RunConfig.from_dict(config), resume=True)
    np.testing.assert_array_equal(*map(embeddings_of, (tmp_path / "run", tmp_path / "killed")))


@pytest.mark.slow
def test_the_source_is_read_once_even_if_the_run_returns_to_a_checkpoint(
    pair, tmp_path, monkeypatch
):
    reads, spoiled = [], []
    read = Teacher.embeddings
    monkeypatch.setattr(Teacher, "embeddings", lambda *args: reads.append(1) or read(*args))

    def spoil(batch):
        if not spoiled:
            spoiled.append(1)
            batch["teacher"] = jax.tree.map(lambda x: x * np.nan, batch["teacher"])

    on_step(monkeypatch, 2, spoil)
    train = {"steps": 3, "checkpoint_every": 1, "max_skipped": 1, "on_skipped": "rollback"}
    train_model(RunConfig.from_dict(settings(pair, tmp_path / "run", **train)))
    assert (len(reads), len(spoiled)) == (1, 1)


def test_new_rows_only_needs_a_transfer(pair, tmp_path):
    config = settings(pair, tmp_path / "run")
    config["model"]["path"] = str(pair / "model-files")
    config["optimizer"]["new_rows_only"] = True
    with pytest.raises(UserError, match=r"model-files has no transfer_origins\.npz"):
        train_model(RunConfig.from_dict(config))


def test_the_layer_must_exist(pair):
    config = RunConfig.from_dict(settings(pair, teacher={"layer": 3}))
    with pytest.raises(UserError, match=r"teacher\.layer is 3, but .* has 2 layers"):
        open_teacher(config, load_model(pair / "model").config)


def test_the_source_reads_without_the_dropout_of_the_run(pair):
    config = settings(pair)
    config["model"]["dropout"] = 0.1
    config = RunConfig.from_dict(config)
    decoder = read_decoder(pair / "model", config.model)
    assert decoder.residual_dropout == 0.1
    assert open_teacher(config, decoder).decoder.residual_dropout == 0


def test_the_end_at_which_rows_move_stays(pair, tmp_path):
    config = settings(pair, tmp_path / "run")
    config["optimizer"]["schedule"] = "constant"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(RunConfig.from_dict(config).to_yaml())
    config["train"]["steps"] = 16
    with pytest.raises(UserError, match=r"train\.steps was 8 and is 16"):
        find_run(RunConfig.from_dict(config), tmp_path / "run", resume=True)


def test_new_layers_have_no_teacher(pair):
    config = settings(pair)
    config["model"]["init"] = "random"
    with pytest.raises(UserError, match=r"no teacher: set model\.init to pretrained"):
        RunConfig.from_dict(config)


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
