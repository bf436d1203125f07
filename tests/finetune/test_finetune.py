"""Planted labels are learned, and by nothing but training; every question is as it is scored."""

from pathlib import Path

import pytest
import yaml

pytest.importorskip("lm_eval")

from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.checkpoint.orbax import latest_step
from clp_jax.cli import main
from clp_jax.convert import convert_checkpoint
from clp_jax.data.corpus.examples import Example
from clp_jax.data.corpus.store import Corpus
from clp_jax.errors import UserError
from clp_jax.evaluate.tasks import evaluate_tasks
from clp_jax.evaluate.tasks.load import load_tasks, task_manager
from clp_jax.files import read_json
from clp_jax.finetune import finetune_model
from clp_jax.finetune.examples import ask, only_task, training_docs
from clp_jax.finetune.settings import run_config
from clp_jax.train.metrics import read_metrics

TASK = "planted"
QUICK = {
    "mesh": {"data": 8, "fsdp": 1},
    "optimizer": {"learning_rate": 5e-3, "schedule": "constant"},
    "train": {"batch_size": 24, "dtype": "float32", "validate_every": 18, "log_every": 9},
}


@pytest.fixture(autouse=True)
def only_the_tasks_that_are_given(monkeypatch):
    """The harness reads its fourteen thousand task files in ten seconds."""
    from lm_eval.tasks import TaskManager

    def quick(*arguments, **options):
        return TaskManager(*arguments, **(options | {"include_defaults": False}))

    monkeypatch.setattr("lm_eval.tasks.TaskManager", quick)


def accuracy(results):
    return results[TASK]["metrics"]["acc"]


def loaded(include_path, name=TASK):
    return only_task(load_tasks(task_manager([name], include_path, None), [name]), name)


def other_task(folder, include_path, **changes):
    """A folder with the planted task, changed; its data stay where they are."""
    fields = yaml.safe_load((include_path / "planted.yaml").read_text("utf-8"))
    (folder / "planted.yaml").write_text(yaml.safe_dump(fields | changes))
    return folder


def test_training_asks_what_is_scored(model, include_path, monkeypatch):
    pairs = []

    def log_likelihoods(_, requests, **__):
        pairs.extend(requests)
        return ((i, 0.0, False) for i in range(len(requests)))

    monkeypatch.setattr("clp_jax.evaluate.harness.log_likelihoods", log_likelihoods)
    evaluate_tasks(model, [TASK], include_path=include_path, num_fewshot=0)
    name, task = loaded(include_path)
    docs = [*task.test_docs()]
    asked = [*ask(name, task, docs, load_tokenizer(model))]
    assert [example.text for example in asked] == [f" {'kr'[doc['label']]}" for doc in docs]
    for number, (example, doc) in enumerate(zip(asked, docs, strict=True)):
        scored = pairs[2 * number + doc["label"]]
        assert (example.question, example.answer) == scored


def test_examples_on_one_passage_are_on_one_side(include_path, tmp_path):
    changed = {"metadata": {"cluster": "text"}}
    name, task = loaded(other_task(tmp_path, include_path, **changed))
    train, held_out = training_docs(name, task, None)
    assert len(train) + len(held_out) == 240
    assert not {doc["text"] for doc in train} & {doc["text"] for doc in held_out}
    fewer = training_docs(name, task, 50)
    assert [len(docs) for docs in fewer] == [45, 5]
    assert training_docs(name, task, 50) == fewer


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training_split": None}, "has 0 training examples, too few"),
        ({"training_split": None, "fewshot_split": "test"}, "has 0 training examples, too few"),
        ({"output_type": "generate_until"}, "does not ask for one of several answers"),
        ({"doc_to_target": "{{''}}"}, "has no right answer: remove it"),
    ],
)
def test_tasks_that_cannot_be_learned_are_refused(model, include_path, tmp_path, changes, message):
    folder = other_task(tmp_path, include_path, **changes)
    with pytest.raises(UserError, match=message):
        finetune_model(model, TASK, tmp_path / "out", include_path=folder)
    assert not (tmp_path / "out").exists()


def test_settings_are_checked_before_anything_is_written(model, include_path, tmp_path, capsys):
    out = tmp_path / "out"
    given = ["finetune", "--model", str(model), "--out", str(out), "--include-path"]
    given += [str(include_path), "--task", TASK]
    for more, message in (
        (["--train.out", "x"], "train.out is set by fine-tuning itself: leave it out, and give"),
        (["--lora.rank", "4"], "unknown key lora.rank"),
        (["--train.seed", "many"], "train.seed: Input should be a valid integer"),
    ):
        with pytest.raises(SystemExit, match=message):
            main([*given, *more])
    assert not out.exists()


def test_what_is_not_given_suits_the_examples():
    examples = [Example([1] * 40, [2], " a")] * 90

    def made(given, positions=None):
        return run_config(
            given, examples, model="m", out=Path("o"), seed=3, epochs=2.0, positions=positions
        )

    full, lora = made({}), made({"lora": {"r": 4}, "train": {"batch_size": 9}})
    assert (full.data.sequence_length, made({}, 48).data.sequence_length) == (64, 48)
    assert (full.train.steps, full.train.validate_every, full.train.patience) == (6, 2, 3)
    assert (lora.train.steps, lora.train.validate_every, lora.train.batch_size) == (20, 5, 9)
    assert (full.train.out, full.train.seed) == ("o/seed-3", 3)
    assert lora.optimizer.learning_rate > full.optimizer.learning_rate
    given = made({"train": {"steps": "3"}})
    assert (given.train.steps, given.optimizer.warmup_steps) == (3, 0)
    assert made({"data": {"sequence_length": 16}}, 48).data.sequence_length == 16


@pytest.mark.slow
def test_planted_labels_are_learned_and_random_weights_are_within_chance(
    model, include_path, tmp_path
):
    before = accuracy(evaluate_tasks(model, [TASK], include_path=include_path))
    assert before["verdict"] == "no better than guessing"
    [tuned] = finetune_model(
        model, TASK, tmp_path / "out", include_path=include_path, epochs=6, settings=QUICK
    )
    after = accuracy(read_json(tuned.run / "tasks.json"))
    assert after["verdict"] == "better than guessing"
    assert after["low"] > 0.8 > after["majority"]
    assert tuned.step == latest_step(tuned.run)
    measured = [line for line in read_metrics(tuned.run) if "validation/answers/loss" in line]
    assert tuned.loss == min(line["validation/answers/loss"] for line in measured[1:])
    assert "better than guessing" in (tuned.run / "model" / "README.md").read_text("utf-8")


@pytest.mark.slow
def test_seeds_and_adapters_from_the_command_line(model, include_path, tmp_path, capsys):
    out, file = tmp_path / "out", tmp_path / "found.json"
    given = ["finetune", "--model", str(model), "--task", TASK, "--out", str(out), "--seeds", "2"]
    given += ["--include-path", str(include_path), "--limit", "30", "--train-examples", "60"]
    given += ["--epochs", "1", "--lora.r", "2", "--train.dtype", "float32"]
    given += ["--mesh.data", "8", "--mesh.fsdp", "1"]
    given += ["--train.batch_size", "24", "--optimizer.lr_multipliers", "{embeddings: 1}"]
    main([*given, "--json", str(file)])
    printed = capsys.readouterr().out
    assert "mean of 2" in printed
    assert "the one with the lowest held-out loss" in printed
    found = read_json(file)
    assert [run["seed"] for run in found["runs"]] == [0, 1]
    assert {score["examples"] for run in found["runs"] for score in run["scores"]} == {30}
    scores = [run["scores"][0]["score"] for run in found["runs"]]
    assert found["spread"]["acc"]["mean"] == pytest.approx(sum(scores) / 2)
    assert Corpus.open(out / "examples" / "heldout").documents == 6
    assert "| LoRA | rank 2" in (out / "seed-0" / "model" / "README.md").read_text("utf-8")
    convert_checkpoint(out / "seed-1", tmp_path / "adapter", "peft")
    assert (tmp_path / "adapter" / "adapter_config.json").exists()

    main(given)
    assert capsys.readouterr().out in printed, "finished seeds are only read"
    with pytest.raises(SystemExit, match=r"lora\.r was 2 and is 3"):
        main([*given, "--lora.r", "3"])
    with pytest.raises(SystemExit, match="has other examples than those of this task"):
        main([*given, "--train-examples", "50"])
