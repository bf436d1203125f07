"""A chain of two tiny GPT-2s: planned, interrupted everywhere, resumed, and told its changes."""

import copy
import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

from clp_jax import chain
from clp_jax.chain import plan_chain, run_chain
from clp_jax.chain_config import ChainConfig
from clp_jax.checkpoint.hf import save_model
from clp_jax.checkpoint.hub import read_config
from clp_jax.cli import main
from clp_jax.data.prepare import prepare_corpus
from clp_jax.errors import RunStopped, UserError
from clp_jax.files import read_json
from clp_jax.mesh import single_device_mesh
from clp_jax.models import initialize, read_decoder_config
from clp_jax.quickstart.inputs import made_up_text, write_new_model, write_text
from clp_jax.train import loop

from .started import start_two

MODELS = ("small", "large")


class Killed(BaseException):
    """What no part of the program catches."""


def write_model(folder, text, width, layers):
    write_new_model(
        folder, text, vocabulary=300 + width, positions=16, layers=layers, width=width, heads=2
    )
    decoder = read_decoder_config(read_config(folder))
    model = initialize(decoder, seed=width, mesh=single_device_mesh())
    files = folder.rename(folder.with_name("files"))
    save_model(model, folder, origin=files)
    shutil.rmtree(files)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A German helper, two English sources of growing size, and a corpus."""
    folder = tmp_path_factory.mktemp("inputs")
    for language in ("en", "de"):
        write_text(made_up_text(language, 20_000, 2_000)[0], folder / f"{language}.jsonl")
    write_model(folder / "helper", folder / "de.jsonl", width=4, layers=1)
    write_model(folder / "source-small", folder / "en.jsonl", width=8, layers=1)
    write_model(folder / "source-large", folder / "en.jsonl", width=16, layers=2)
    prepare_corpus([str(folder / "de.jsonl")], folder / "helper", folder / "corpus")
    return folder


@pytest.fixture
def settings(inputs, tmp_path, monkeypatch):
    """A chain of two models, five steps each, in the working directory's folder ``out``."""
    monkeypatch.chdir(tmp_path)
    train = {"steps": 5, "batch_size": 8, "dtype": "float32", "checkpoint_every": 2, "log_every": 1}
    return {
        "helper": str(inputs / "helper"),
        "out": "out",
        "transfer": {"dtype": "float32"},
        "data": {"train": str(inputs / "corpus"), "sequence_length": 16},
        "models": [
            {"name": name, "source": str(inputs / f"source-{name}"), "train": dict(train)}
            for name in MODELS
        ],
    }


def run(settings, **arguments):
    run_chain(ChainConfig.from_dict(settings), **arguments)


def table(printed):
    """The cells of the plan by model."""
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = [row for row in rows if len(row) == len(rows[0])]  # trainings print a table too
    return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}


def contents(out):
    """All bytes of the transferred and the trained models."""
    return {
        str(file.relative_to(out)): file.read_bytes()
        for name in MODELS
        for stage in ("transfer", "model")
        for file in (Path(out) / name / stage).iterdir()
    }


@pytest.mark.usefixtures("compiled_once")
def test_interrupted_everywhere_equals_never_interrupted(settings, monkeypatch, capsys):
    settings["transfer"]["method"] = "clp"
    run(settings)
    unbroken = contents("out")
    capsys.readouterr()
    run(settings)
    again = capsys.readouterr().out
    assert "to do" not in again
    assert len(again.splitlines()) == 4, "a finished chain prints its plan and does nothing"
    shutil.move("out", "unbroken")

    states = []
    for _ in MODELS:
        for killer in (after_the_transfer, before_the_fourth_step, after_the_training):
            with monkeypatch.context() as patch:
                killer(patch)
                with pytest.raises(Killed):
                    run(settings)
            states.append(table(capsys.readouterr().out))
    run(settings)
    assert contents("out") == unbroken

    stages = ("transfer", "training", "tokens to be seen", "export")
    told = [[tuple(state[name][stage] for stage in stages) for state in states] for name in MODELS]
    untouched = ("to do", "to do", "640", "to do")
    on_the_way = [("done", "to do", "640", "to do")]
    on_the_way += [("done", "to resume from step 2 of 5", "384", "to do")]
    trained, finished = ("done", "done", "0", "to do"), ("done", "done", "0", "done")
    assert told[0] == [untouched, *on_the_way, trained, finished, finished]
    assert told[1] == [untouched, untouched, untouched, untouched, *on_the_way]


def test_several_processes_report_at_once_that_they_cannot_read_a_run(
    settings, tmp_path, monkeypatch
):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for key in ("helper", "source"):
        changed = copy.deepcopy(settings)
        (changed if key == "helper" else changed["models"][1])[key] = str(tmp_path / "run")
        with pytest.raises(UserError, match=r"run is a run folder, .* `clp-jax convert --to hf`"):
            plan_chain(ChainConfig.from_dict(changed))


PROCESS = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 1)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
from clp_jax.chain import plan_chain, run_chain
from clp_jax.chain_config import ChainConfig
run_chain(ChainConfig.from_dict(json.loads(sys.argv[1])))
"""


@pytest.mark.slow
def test_two_processes_grow_one_chain(settings, capsys):
    processes = start_two(PROCESS, json.dumps(settings))
    (first, printed), (second, silence) = (process.end() for process in processes)
    assert (first, second) == (0, 0), printed + silence
    assert table(printed)["large"]["export"] == "to do"
    assert "|" not in silence, "one process tells the plan"
    run(settings)
    assert table(capsys.readouterr().out)["large"]["export"] == "done"


def after_the_transfer(patch):
    patch.setattr(chain, "transfer_model", killed_after(chain.transfer_model))


def after_the_training(patch):
    patch.setattr(chain, "train_model", killed_after(chain.train_model))


def killed_after(stage):
    @functools.wraps(stage)
    def killed(*args, **kwargs):
        stage(*args, **kwargs)
        raise Killed

    return killed


def before_the_fourth_step(patch):
    make_train_step = loop.make_train_step

    def make_killed_step(*args, **kwargs):
        step = make_train_step(*args, **kwargs)

        def killed_step(params, optimizer_state, index, batch):
            if index == 3:
                raise Killed
            return step(params, optimizer_state, index, batch)

        return killed_step

    patch.setattr(loop, "make_train_step", make_killed_step)


@pytest.fixture
def recorded(monkeypatch):
    """Stages that only write what the plan looks for, and what they were called with."""
    calls = []

    @functools.wraps(chain.transfer_model)
    def transfer(source, helper, out, **arguments):
        calls.append(("transfer", source, helper, str(out), arguments))
        Path(out).mkdir()
        shutil.copy(Path(source) / "config.json", out)
        return "the choice"

    def train(config, *, resume):
        calls.append(("train", config.model.path, config.train.out, resume))

    def convert(run, out, to, **_):
        calls.append(("convert", str(run), str(out), to))
        Path(out).mkdir()
        shutil.copy(Path(run).parent / "transfer" / "config.json", out)

    monkeypatch.setattr(chain, "transfer_model", transfer)
    monkeypatch.setattr(chain, "summarize", lambda manifest, out: f"{manifest} for {out}")
    monkeypatch.setattr(chain, "train_model", train)
    monkeypatch.setattr(chain, "convert_checkpoint", convert)
    return calls


def test_each_trained_model_is_the_helper_of_the_next(settings, recorded, capsys):
    run(settings)
    printed = capsys.readouterr().out.splitlines()
    helpers = {"small": settings["helper"], "large": "out/small/model"}
    expected = []
    for model in settings["models"]:
        name, source = model["name"], model["source"]
        stages = [f"out/{name}/{stage}" for stage in ("transfer", "run", "model")]
        made, trained, exported = stages
        expected += [("transfer", source, helpers[name], made), ("train", made, trained, True)]
        expected += [("convert", trained, exported, "hf")]
        assert f"the choice for {made}" in printed
    assert [call[:4] for call in recorded] == expected
    assert recorded[0][4].keys() == {"dtype", "mesh"}


def test_a_tokenizer_of_its_own_is_that_of_all_models(settings, recorded, inputs):
    settings["transfer"]["tokenizer"] = settings["helper"]
    run(settings | {"helper": str(inputs / "source-small")})
    transfers = [call for call in recorded if call[0] == "transfer"]
    assert [call[2] for call in transfers] == [str(inputs / "source-small"), "out/small/model"]
    assert {call[4]["tokenizer"] for call in transfers} == {settings["helper"]}


def test_a_training_run_that_is_stopped_ends_the_chain(settings, recorded, monkeypatch):
    def stop(config, *, resume):
        raise RunStopped("saved")

    monkeypatch.setattr(chain, "train_model", stop)
    with pytest.raises(RunStopped):
        run(settings)
    assert [stage for stage, *_ in recorded] == ["transfer"]


def test_dry_run_prints_the_plan_and_writes_nothing(settings, recorded, tmp_path, capsys):
    file = tmp_path / "chain.yaml"
    file.write_text(yaml.safe_dump(settings))
    main(["chain", "--config", str(file), "--dry-run"])
    plan = table(capsys.readouterr().out)
    assert recorded == []
    assert [path.name for path in tmp_path.iterdir()] == ["chain.yaml"]
    vocabulary, width, layers, positions = 304, 16, 2, 16
    layer = 12 * width**2 + 13 * width
    expected = (vocabulary + positions) * width + layers * layer + 2 * width
    assert plan["large"]["parameters"] == f"{expected:,}"
    assert plan["large"]["tokens to be seen"] == f"{5 * 8 * 16:,}"


def test_a_model_may_have_its_own_corpora_and_dropout(settings, recorded):
    settings["models"][1]["data"] = settings["data"] | {"sequence_length": 8}
    settings["models"][1]["dropout"] = 0.0
    small, large = chain.plan_chain(ChainConfig.from_dict(settings))
    assert (small.run.data.sequence_length, large.run.data.sequence_length) == (16, 8)
    assert (small.run.model.dropout, large.run.model.dropout) == (None, 0.0)


def test_finished_models_need_neither_sources_nor_what_they_were_made_of(
    settings, recorded, tmp_path, inputs
):
    shutil.copytree(inputs / "source-small", tmp_path / "copy")
    settings["models"][0]["source"] = str(tmp_path / "copy")
    run(settings)
    shutil.rmtree(tmp_path / "copy")
    shutil.rmtree("out/small/transfer")
    done = len(recorded)
    run(settings)
    assert len(recorded) == done


def test_settings_that_change_no_number_may_change(settings, recorded):
    run(settings)
    done = len(recorded)
    settings["models"][0]["mesh"] = {"data": 2, "fsdp": 4}
    settings["models"][0]["train"] |= {"remat": "none", "log_every": 3}
    settings["models"].append(settings["models"][1] | {"name": "larger"})
    run(settings)
    assert recorded[done][3] == "out/larger/transfer"


def test_models_text_and_vectors_may_move_but_not_change(settings, recorded, tmp_path, inputs):
    """Each in turn, in a chain whose first model is transferred and not trained."""
    for name in ("helper", "source-small"):
        shutil.copytree(inputs / name, tmp_path / "old" / name)
    shutil.copy(inputs / "de.jsonl", tmp_path / "old")
    np.save(tmp_path / "old" / "rows.npy", np.ones((304, 2), np.float32))

    def chain_of(place):
        at = {
            name: str(place / name) for name in ("helper", "source-small", "de.jsonl", "rows.npy")
        }
        transfer = {"method": "focus", "data": [at["de.jsonl"]], "tokenizer": at["helper"]}
        return settings | {
            "helper": at["helper"],
            "transfer": transfer | {"token_vectors": at["rows.npy"]},
            "models": [settings["models"][0] | {"source": at["source-small"]}],
        }

    run(chain_of(tmp_path / "old"))
    shutil.rmtree("out/small/model")
    (tmp_path / "old").rename(tmp_path / "new")
    moved = chain_of(tmp_path / "new")
    plan_chain(ChainConfig.from_dict(moved))
    spoiled = {
        "helper/model.safetensors": "helper",
        "source-small/model.safetensors": "small.source",
        "de.jsonl": "transfer.data",
        "rows.npy": "transfer.token_vectors",
    }
    for name, key in spoiled.items():
        file = tmp_path / "new" / name
        whole = file.read_bytes()
        last = b'{"text": "Noch ein Satz."}\n{"text": "Und noch einer."}\n'
        file.write_bytes(last if name == "de.jsonl" else whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(UserError, match=rf"out/small was .* settings: {key} was [^;]* and is"):
            plan_chain(ChainConfig.from_dict(moved))
        file.write_bytes(whole)
    for gone in ("source-small", "de.jsonl", "rows.npy"):
        (tmp_path / "new" / gone).rename(tmp_path / f"gone-{gone}")
    plan_chain(ChainConfig.from_dict(moved))
    moved["models"].append(settings["models"][1])
    with pytest.raises(UserError, match=r"rows.npy is missing"):
        plan_chain(ChainConfig.from_dict(moved))


def test_corpora_may_move_but_not_change(settings, recorded, tmp_path, inputs):
    corpora = [tmp_path / name for name in ("one", "two", "three")]
    shutil.copytree(inputs / "corpus", corpora[0])
    settings["data"] |= {"train": str(corpora[0]), "validation": str(inputs / "corpus")}
    settings["models"].pop()
    run(settings)
    done = len(recorded)
    corpora[0].rename(corpora[1])
    settings["data"] |= {"train": str(corpora[1]), "validation": str(corpora[1])}
    run(settings)
    assert len(recorded) == done
    prepare_corpus([str(inputs / "en.jsonl")], inputs / "helper", corpora[2])
    heldout = {"German": str(inputs / "corpus"), "English": str(corpora[2])}
    other = {"train": str(corpora[2]), "validation": heldout, "sequence_length": 16}
    with pytest.raises(UserError, match=r"out/small was made .*: small.data.train was .* and is"):
        run(settings | {"data": other})
    shutil.rmtree(corpora[1])
    run(settings)
    settings["models"].append(settings["models"][0] | {"name": "large", "data": other})
    run(settings)
    assert recorded[done][3] == "out/large/transfer"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda settings: settings["transfer"].update(dtype="bfloat16"),
            r"^out/small was made .*: transfer.dtype was float32 and is bfloat16\. Restore them",
        ),
        (
            lambda settings: settings["transfer"].update(no_fallback=True, method="clp"),
            r"out/small was made .*: transfer.method was None and is clp; "
            r"transfer.no_fallback was None and is True\. ",
        ),
        (
            lambda settings: settings["models"][1]["train"].update(steps=6),
            r"out/large was made with other settings: large.train.steps was 5 and is 6\. ",
        ),
        (
            lambda settings: settings["models"][0].update(optimizer={"learning_rate": 1}),
            r"out/small was made .*: small.optimizer.learning_rate was 0.0001 and is 1.0\. ",
        ),
        (
            lambda settings: settings["models"][0].update(dropout=0.1),
            r"out/small was made .*: small.dropout was None and is 0.1\. ",
        ),
        (lambda settings: settings["models"].pop(0), "out/large was .*; and [0-9]+ more"),
    ],
)
def test_models_made_with_other_settings_are_reported_and_not_used(
    settings, recorded, change, sentence
):
    run(settings)
    change(settings)
    with pytest.raises(UserError, match=sentence):
        run(settings)


def test_a_model_that_is_made_again_makes_the_next_one_stale(settings, recorded):
    run(settings)
    settings["models"][0]["train"]["seed"] = 1
    shutil.rmtree("out/small")
    with pytest.raises(UserError, match=r"out/large was .*: small.train.seed was 0 and is 1"):
        run(settings)
    shutil.rmtree("out/large")
    run(settings)
    assert read_json("out/large/settings.json")["small.train.seed"] == 1


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (("transfer",), {"metod": "clp"}, "unknown key transfer.metod"),
        (("transfer",), {"helper": "x"}, "unknown key transfer.helper"),
        (("transfer",), {"data": ["{inputs}/none.txt"]}, "none.txt matches no file"),
        (("transfer",), {"data": ["{inputs}/one.txt"]}, "one.txt holds 1 documents: a sample"),
        (("transfer",), {"method": "focus", "token_vectors": "{inputs}/one.npy"}, "has 1 rows"),
        (("models",), [], "models: List should have at least 1 item"),
        (("models", 1, "name"), "small", "each name must be different.* small, small"),
        (("models", 1, "name"), "../large", "models.1.name: String should match"),
        (("models", 1, "train", "out"), "x", "unknown key models.1.train.out"),
        (("models", 1, "train", "steps"), 0, "models.1.train.steps: .* greater than 0"),
        (("models", 1, "source"), "/none", "/none is not a folder"),
        (("models", 1, "optimizer"), {"warmup_steps": 9}, "warmup_steps is 9, which must be less"),
        (("models", 1, "mesh"), {"fsdp": 3}, "needs 3 devices, but there are 8"),
        (("models", 1, "mesh"), {"fsdp": 2, "tensor": 4}, "tensor=4 does not divide the model's"),
        (("models", 1, "train", "batch_size"), 4, "must be a multiple of the 8 devices"),
        (("data", "sequence_length"), 17, "the model has 16 positions"),
        (("data", "train"), "/none", "/none is not a corpus"),
        (("helper",), "{inputs}/source-small", "was made with another tokenizer"),
    ],
)
def test_mistakes_are_reported_before_any_work(settings, recorded, inputs, place, value, sentence):
    *path, last = place
    section = settings
    for key in path:
        section = section[key]
    (inputs / "one.txt").write_text("eins")
    np.save(inputs / "one.npy", np.ones((1, 2), np.float32))
    section[last] = json.loads(json.dumps(value).replace("{inputs}", str(inputs)))
    with pytest.raises(UserError, match=sentence):
        run(settings)
    assert recorded == []
    assert not Path("out").exists()


def test_a_damaged_source_is_reported_before_any_work(settings, recorded, tmp_path, inputs):
    shutil.copytree(inputs / "source-large", tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").unlink()
    settings["models"][1]["source"] = str(tmp_path / "damaged")
    with pytest.raises(UserError, match="damaged"):
        run(settings)
    assert recorded == []


def test_a_folder_of_something_else_is_reported(settings, recorded):
    Path("out/large/model").mkdir(parents=True)
    with pytest.raises(UserError, match="out/large is not part of a chain"):
        run(settings)
    assert recorded == []
