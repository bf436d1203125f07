import json

import numpy as np
import pytest
import yaml

pytest.importorskip("lm_eval")
from clp_jax.errors import UserError
from clp_jax.evaluate.names import FOLDER
from clp_jax.evaluate.tasks import evaluate_tasks, read_results, render_tasks, run

from .conftest import OTHERS
from .stub import loaded

TASKS = ["clp_germeval2018_coarse_question", "clp_pawsx_de_question"]
TWEETS = [
    ("Was für ein schöner Abend! |LBR| Danke.", "OTHER"),
    ("Du bist so ein Depp.", "OFFENSE"),
    ("Die Katze liest ein Buch", "OTHER"),
    ("Halt den Mund, du Idiot", "OFFENSE"),
    ("Es regnet in Berlin", "OTHER"),
    ("@hund Ist das eine Frage?", "OTHER"),
]
PAIRS = [
    ("Der Hund läuft.", "Es läuft der Hund.", 1),
    ("Er sah sie.", "Sie sah ihn.", 0),
    ("Sie las  ein Buch.", "Ein Buch las sie.", 1),
    ("Es regnet.", "Es schneit.", 0),
]


@pytest.fixture(scope="module")
def task_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    for name, rows in {
        "germeval2018": [{"text": text, "label": label} for text, label in TWEETS],
        "pawsx_de": [{"text_a": a, "text_b": b, "label": label} for a, b, label in PAIRS],
    }.items():
        (folder / name).mkdir()
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / name / "test.jsonl").write_text("".join(lines), "utf-8")
    return folder


@pytest.fixture(scope="module")
def results(model_folder, task_data):
    return evaluate_tasks(model_folder, TASKS, task_data=task_data, batch_size=8)


def by_the_hf_model(folder, tasks, **places):
    """What the harness finds with its own PyTorch model."""
    pytest.importorskip("torch")
    from lm_eval.models.huggingface import HFLM

    model = HFLM(str(folder), device="cpu", dtype="float32", batch_size=32)
    return run.run_harness(model, loaded(tasks, **places))


def test_our_tasks_score_as_the_harness_with_its_hf_model(results, model_folder, task_data):
    theirs = by_the_hf_model(model_folder, TASKS, task_data=task_data).results["results"]
    for name in TASKS:
        ours = {metric: score["score"] for metric, score in results[name]["metrics"].items()}
        assert ours == pytest.approx({metric: theirs[name][f"{metric},none"] for metric in ours})
        assert {"acc", "acc_norm", "f1"} == set(ours)


def test_every_kind_of_task_scores_as_the_harness_with_its_hf_model(model_folder, include_path):
    ours = evaluate_tasks(model_folder, ["planted"], include_path=include_path)
    theirs = by_the_hf_model(model_folder, ["planted"], include_path=include_path).results
    assert set(ours) == set(OTHERS)
    for name, task in ours.items():
        for metric, score in task["metrics"].items():
            expected = theirs["results"][name][f"{metric},none"]
            assert score["score"] == pytest.approx(expected, rel=1e-4)
    assert ours["planted_choice"]["metrics"]["acc"]["random"] == pytest.approx(
        (1 / 2 + 1 / 3 + 1 / 2) / 3
    )
    assert ours["planted_choice"]["metrics"]["acc"]["majority"] is None
    assert ours["planted_text"]["metrics"]["bits_per_byte"]["verdict"] == ""


def test_a_group_is_its_tasks_and_the_harness_files_are_written(
    model_folder, include_path, tmp_path
):
    ours = evaluate_tasks(
        model_folder,
        ["both_choices"],
        include_path=include_path,
        num_fewshot=1,
        calibrate=True,
        output_path=tmp_path,
        log_samples=True,
    )
    assert set(ours) == {"planted_choice", "planted_word"}
    assert ours["planted_choice"]["num_fewshot"] == 1
    [file] = tmp_path.rglob("results_*.json")
    written = json.loads(file.read_text("utf-8"))["results"]["planted_choice"]
    assert written["acc,none"] == ours["planted_choice"]["metrics"]["acc"]["score"]
    assert len([*tmp_path.rglob("samples_planted_choice_*.jsonl")]) == 1
    assert {"acc_bytes", "acc_pmi_dc", "acc_cc"} <= set(ours["planted_choice"]["metrics"])


@pytest.mark.slow
def test_the_suites_name_tasks_of_the_harness_and_ours():
    from lm_eval.tasks.manager import TaskManager

    known = {*TaskManager().all_tasks, *(file.stem for file in (FOLDER / "own").glob("*.yaml"))}
    suites = [yaml.safe_load(file.read_text()) for file in (FOLDER / "suites").glob("*.yaml")]
    assert {suite["group"] for suite in suites} == {"english", "german", "paper"}
    for suite in suites:
        assert len({*suite["task"]}) == len(suite["task"]) > 7
        assert set(suite["task"]) <= known


def test_questions_without_a_right_choice_have_no_baselines(model_folder, include_path, tmp_path):
    strange = yaml.safe_load((include_path / "planted_choice.yaml").read_text())
    strange |= {"task": "strange", "doc_to_target": "{{question}}"}
    (tmp_path / "strange.yaml").write_text(yaml.safe_dump(strange))
    found = evaluate_tasks(model_folder, ["strange"], include_path=tmp_path)["strange"]
    assert found["metrics"]["acc"]["score"] == 0
    assert found["metrics"]["acc"]["random"] is None


def test_results_that_could_not_be_written_are_refused_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    for output, sentence in (
        (tmp_path / "file", "file is not a folder"),
        (tmp_path / "file" / "results", "file is not a folder"),
        (None, "log_samples needs a folder"),
    ):
        with pytest.raises(UserError, match=sentence):
            evaluate_tasks(
                "no-such-model", ["clp_pawsx_de_paper"], output_path=output, log_samples=True
            )


def test_results_hold_counts_and_baselines(results):
    task = results["clp_germeval2018_coarse_question"]
    assert task["examples"] == 6
    accuracy = task["metrics"]["acc"]
    assert accuracy["random"] == pytest.approx(1 / 2)
    assert accuracy["majority"] == pytest.approx(4 / 6)
    assert task["metrics"]["f1"]["majority"] == pytest.approx((8 / 10) / 2)
    assert json.loads(json.dumps(results)) == results


def test_the_tables_have_a_line_for_each_metric_and_class(results):
    scores, classes, note = (part.splitlines() for part in render_tasks(results).split("\n\n"))
    assert note == ["Computed in float32."]
    assert len(scores) == 2 + 2 * 3
    assert "shuffled" in scores[0]
    assert "guessing" in scores[-1]
    assert len(classes) == 2 + 2 * 2
    assert "| OFFENSE" in classes[3]


def test_the_command_tests_a_model_against_a_result(
    results, model_folder, tmp_path, monkeypatch, capsys
):
    from clp_jax.cli import main

    monkeypatch.setattr("clp_jax.evaluate.tasks.evaluate_tasks", lambda *a, **options: results)
    file = str(tmp_path / "first.json")
    call = ["evaluate", "tasks", "--model", str(model_folder), "--tasks", TASKS[0]]
    main([*call, "--calibrate", "--json", file])
    assert read_results(file) == results
    capsys.readouterr()
    main([*call, "--against", file])
    assert f"Against {file}:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "prompt"),
    [
        (
            "clp_germeval2018_coarse_question",
            "Tweet: Was für ein schöner Abend! Danke.\n"
            "Frage: Ist dieser Tweet beleidigend?\nAntwort:",
        ),
        (
            "clp_pawsx_de_question",
            "Satz 1: Der Hund läuft.\nSatz 2: Es läuft der Hund.\n"
            "Frage: Bedeuten beide Sätze dasselbe?\nAntwort:",
        ),
    ],
)
def test_the_questions_have_single_spaces(model_folder, task_data, task, prompt):
    samples = by_the_hf_model(model_folder, [task], task_data=task_data).results["samples"][task]
    assert samples[0]["arguments"] == [(prompt, " Nein"), (prompt, " Ja")]
    assert all("  " not in context + answer for s in samples for context, answer in s["arguments"])


def test_a_limit_takes_the_first_examples(model_folder, task_data):
    results = evaluate_tasks(
        model_folder, ["clp_germeval2018_coarse_question"], task_data=task_data, limit=3
    )
    assert results["clp_germeval2018_coarse_question"]["examples"] == 3


@pytest.mark.slow
def test_the_same_predictions_as_the_hf_model_on_all_of_germeval(tweet_model_folder, shared_data):
    from clp_jax.checkpoint.hf import load_model
    from clp_jax.checkpoint.hub import load_tokenizer
    from clp_jax.evaluate.harness import JaxLM

    tasks, task_data = ["clp_germeval2018_coarse_question"], shared_data / "tasks"
    model = JaxLM(load_model(tweet_model_folder), load_tokenizer(tweet_model_folder), batch_size=32)
    ours, theirs = (
        [
            sample["filtered_resps"]
            for sample in found.results["samples"]["clp_germeval2018_coarse_question"]
        ]
        for found in (
            run.run_harness(model, loaded(tasks, task_data=task_data)),
            by_the_hf_model(tweet_model_folder, tasks, task_data=task_data),
        )
    )
    assert len(ours) == 3532
    likelihoods = [np.array(responses)[..., 0].astype(float) for responses in (ours, theirs)]
    chosen = [values.argmax(axis=1) for values in likelihoods]
    assert chosen[0].tolist() == chosen[1].tolist()
    assert 300 < chosen[0].sum() < 3232
    np.testing.assert_allclose(*likelihoods, rtol=0, atol=1e-4)
