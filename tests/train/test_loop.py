import itertools
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from clp_jax.checkpoint.hf import load_model, save_model
from clp_jax.config import RunConfig
from clp_jax.data.corpus.store import write_corpus
from clp_jax.errors import UserError
from clp_jax.files import read_json
from clp_jax.mesh import single_device_mesh
from clp_jax.models import initialize, read_decoder_config
from clp_jax.train import validation
from clp_jax.train.loop import train_model
from clp_jax.train.metrics import read_metrics

from .conftest import CONFIG, leaves, sentences, without_times, write_model_files

TIMES = {"step", "tokens", "seconds"}
VALIDATION = {
    "loss",
    "token_perplexity",
    "word_perplexity",
    "byte_perplexity",
    "bits_per_byte",
}
GROUPS = {f"gradient_norm/{group}" for group in ("embeddings", "positions", "layers", "final_norm")}
TRAINING = {"loss", "perplexity", "learning_rate", "gradient_norm", "skipped_steps"} | GROUPS
SPEED = {"tokens_per_second", "tokens_per_second_per_chip", "data_wait"}
STAGES = {f"time/{name}" for name in ("start", "training", "data", "validation", "saving", "lost")}

pytestmark = pytest.mark.usefixtures("compiled_once")


def test_run_folder_holds_all_that_is_promised(settings, tmp_path):
    summary = train_model(RunConfig.from_dict(settings))
    folder = tmp_path / "run"
    assert (summary.folder, summary.steps, summary.tokens) == (folder, 4, 4 * 8 * 16)
    names = {
        "config.yaml",
        "run.json",
        "model",
        "checkpoints",
        "metrics.jsonl",
        "tensorboard",
        "curve.png",
    }
    assert {file.name for file in folder.iterdir()} == names | {"curve.png"}
    assert RunConfig.from_yaml(folder / "config.yaml") == RunConfig.from_dict(settings)
    assert {file.name for file in (folder / "checkpoints").iterdir()} == {"2", "4"}
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")

    lines = read_metrics(folder)
    training = [line for line in lines if "train/loss" in line]
    validation = [line for line in lines if "validation/loss" in line]
    assert [line["step"] for line in training] == [1, 2, 3, 4]
    assert [line["step"] for line in validation] == [0, 2, 4]
    computed = {f"train/{key}" for key in TRAINING} | {f"speed/{key}" for key in SPEED}
    clocks = TIMES | STAGES
    others = {"time/goodput", "memory/host_peak_bytes"}
    assert all(set(line) == clocks | computed | others for line in training)
    measured = {f"validation/{key}" for key in VALIDATION} | {"embeddings/norm_all"}
    assert all(set(line) == clocks | measured for line in validation)
    assert all(
        line["seconds"] == pytest.approx(sum(line[stage] for stage in STAGES), abs=0.01)
        for line in lines
    )
    assert training[-1]["train/loss"] == summary.loss < training[0]["train/loss"]
    curve = [(line["tokens"], line["validation/token_perplexity"]) for line in validation]
    assert list(summary.curve) == curve
    assert curve[-1][1] < curve[0][1] < 2 * CONFIG["vocab_size"]

    again = train_model(RunConfig.from_dict(settings), resume=True)
    assert again == summary, "a finished run is only read"
    assert read_metrics(folder) == lines


@pytest.mark.slow
def test_several_heldout_sets_of_which_the_first_decides(settings, tmp_path, monkeypatch):
    plotted = []
    monkeypatch.setattr(
        validation, "plot_bits_per_byte", lambda panels, out: plotted.append(panels)
    )
    alone = without_times(train_model(RunConfig.from_dict(settings)).folder)
    data = settings["data"]
    data["validation"] = {"German": data["validation"], "English text": data["train"]}
    settings["train"] |= {"out": str(tmp_path / "several"), "keep_best": 1}
    summary = train_model(RunConfig.from_dict(settings))
    lines = without_times(summary.folder)
    for before, line in zip(alone, lines, strict=True):
        german = {key.replace("/German/", "/"): line[key] for key in line if "English" not in key}
        assert german == before
    [panel] = plotted[-1].values()
    assert list(panel) == ["German", "English text"]
    last = lines[-1]
    assert panel["English text"][-1] == (
        512,
        pytest.approx(last["validation/English text/bits_per_byte"]),
    )
    assert summary.curve[-1] == (512, last["validation/German/token_perplexity"])

    shutil.rmtree(summary.folder / "checkpoints" / "4")
    assert train_model(RunConfig.from_dict(settings), resume=True) == summary
    assert without_times(summary.folder) == lines


@pytest.mark.slow
def test_a_mixture_is_printed_and_its_table_kept(settings, inputs, capsys):
    train, validation = settings["data"]["train"], settings["data"]["validation"]
    settings["data"]["train"] = [
        {"path": train, "weight": 3},
        {"path": validation, "weight": 1},
    ]
    settings["data"] |= {"document_mask": True, "restart_positions": True}
    run = train_model(RunConfig.from_dict(settings)).folder
    told = capsys.readouterr().out.splitlines()
    table = "\n".join(itertools.takewhile(lambda line: line.startswith("|"), told))
    assert table in (run / "model" / "README.md").read_text()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    tokens = [read_json(Path(path) / "manifest.json")["tokens"] for path in (train, validation)]
    sequences = [4 * 8 * 3 / 4, 4 * 8 / 4]
    epochs = [n / -(-(count - 1) // 16) for n, count in zip(sequences, tokens, strict=True)]
    assert lines[2:] == [
        ["train", f"{tokens[0]:,}", "75.0%", f"{epochs[0]:.2f}"],
        ["validation", f"{tokens[1]:,}", "25.0%", f"{epochs[1]:.2f}"],
    ]


@pytest.mark.slow
def test_pretrained_weights_are_where_a_run_starts(settings, inputs, tmp_path):
    model = initialize(read_decoder_config(CONFIG), seed=5, mesh=single_device_mesh())
    save_model(model, tmp_path / "pretrained", origin=inputs / "model")
    settings["model"] = {"path": str(tmp_path / "pretrained")}
    settings["optimizer"] = {"learning_rate": 1e-20}
    settings["train"] |= {"steps": 1}
    trained = load_model(train_model(RunConfig.from_dict(settings)).folder)
    tokens = jnp.arange(12).reshape(1, 12)
    np.testing.assert_allclose(trained(tokens), model(tokens), rtol=1e-6)


def test_a_damaged_checkpoint_costs_an_interval_and_no_byte(settings, tmp_path, capsys):
    whole = train_model(RunConfig.from_dict(settings)).folder
    shutil.copytree(whole, tmp_path / "damaged")
    settings["train"]["out"] = str(tmp_path / "damaged")
    checkpoint = tmp_path / "damaged" / "checkpoints" / "4"
    largest = max(checkpoint.rglob("d/*"), key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])

    resumed = train_model(RunConfig.from_dict(settings), resume=True).folder
    assert f"{checkpoint} is damaged ({largest.relative_to(checkpoint)})" in capsys.readouterr().out
    assert without_times(resumed) == without_times(whole)
    for ours, theirs in zip(leaves(resumed), leaves(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def break_sequence_length(settings, folder):
    settings["data"]["sequence_length"] = 17


def break_batch_size(settings, folder):
    settings["train"]["batch_size"] = 9


def break_parts(settings, folder):
    settings["train"]["gradient_accumulation_steps"] = 8


def break_mesh(settings, folder):
    settings["mesh"]["tensor"] = 3


def break_heads(settings, folder):
    settings["mesh"] = {"data": 1, "fsdp": 1, "tensor": 8}


def break_warmup(settings, folder):
    settings["optimizer"]["warmup_steps"] = 4


def break_corpus(settings, folder):
    settings["data"]["train"] = str(folder / "absent")


def break_mixture(settings, folder):
    (folder / "other").mkdir()
    tokenizer = write_model_files(folder / "other", CONFIG, texts=["ganz andere Wörter"])
    write_corpus(sentences(5, 0), tokenizer, folder / "second")
    parts = [settings["data"]["train"], str(folder / "second")]
    settings["data"]["train"] = [{"path": path, "weight": 1} for path in parts]


def break_model(settings, folder):
    settings["model"]["path"] = str(folder / "absent")


def break_tokenizer(settings, folder):
    (folder / "other").mkdir()
    tokenizer = write_model_files(folder / "other", CONFIG, texts=["ganz andere Wörter"])
    write_corpus(sentences(5, 0), tokenizer, folder / "corpus")
    settings["data"]["validation"] = str(folder / "corpus")


def break_vocabulary(settings, folder):
    (folder / "small").mkdir()
    write_model_files(folder / "small", CONFIG | {"vocab_size": 200})
    settings["model"]["path"] = str(folder / "small")


def break_best(settings, folder):
    settings["data"]["validation"] = None
    settings["train"]["keep_best"] = 1


def break_out(settings, folder):
    (folder / "run").mkdir()
    (folder / "run" / "thesis.tex").touch()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (break_sequence_length, r"data.sequence_length is 17, but the model has 16 positions"),
        (
            break_batch_size,
            r"train.batch_size / train.gradient_accumulation_steps is 9, .* multiple of the 2 ",
        ),
        (
            break_parts,
            r"train.batch_size / train.gradient_accumulation_steps is 1, .* multiple of the 2 ",
        ),
        (break_mesh, r"tensor=3 sequence=1 needs 6 devices, but there are 8"),
        (break_heads, r"tensor=8 does not divide the model's heads dimension of 4"),
        (break_warmup, r"optimizer.warmup_steps is 4, which must be less than train.steps, 4"),
        (break_corpus, r"absent is not a corpus: write one with `clp-jax prepare`"),
        (break_mixture, r"second was made with another tokenizer than that of .*model"),
        (break_model, r"absent.* is not a folder"),
        (break_tokenizer, r"corpus was made with another tokenizer than that of .*model"),
        (break_vocabulary, r"has 200 rows, but its tokenizer has ids up to 299"),
        (break_best, r"keep_best would be ignored, because data.validation is empty"),
        (break_out, r"run exists and is not a run folder: choose another"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_is_written(settings, tmp_path, spoil, sentence):
    spoil(settings, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=sentence) as error:
        train_model(RunConfig.from_dict(settings))
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before
