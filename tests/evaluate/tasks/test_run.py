import json

import numpy as np
import pytest

pytest.importorskip("lm_eval")
from clp_jax.errors import UserError
from clp_jax.evaluate.names import TASKS
from clp_jax.evaluate.tasks import evaluate_tasks, render_tasks, run

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


def hf_samples(folder, tasks, task_data):
    """What the harness's own PyTorch model answers."""
    pytest.importorskip("torch")
    from lm_eval.models.huggingface import HFLM

    model = HFLM(str(folder), device="cpu", dtype="float32", batch_size=32)
    return run.run_harness(model, run.load_tasks(tasks, task_data), limit=None)


def test_the_scores_are_those_of_the_harness_with_its_hf_model(results, model_folder, task_data):
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    theirs = evaluate(
        HFLM(str(model_folder), device="cpu", dtype="float32"),
        run.load_tasks(TASKS, task_data),
        bootstrap_iters=0,
    )["results"]
    for name in TASKS:
        ours = {metric: score["score"] for metric, score in results[name]["metrics"].items()}
        assert ours == pytest.approx(
            {
                "accuracy": theirs[name]["acc,none"],
                "accuracy_normalised": theirs[name]["acc_norm,none"],
                "macro_f1": theirs[name]["f1,none"],
            }
        )


def test_results_hold_counts_and_baselines(results):
    task = results["germeval2018"]
    assert task["examples"] == 6
    assert task["choices"] == ["Nein", "Ja"]
    assert np.sum(task["confusion"], axis=1).tolist() == [4, 2]
    accuracy = task["metrics"]["accuracy"]
    assert accuracy["random"] == pytest.approx(1 / 2)
    assert accuracy["majority"] == pytest.approx(4 / 6)
    assert task["metrics"]["macro_f1"]["majority"] == pytest.approx((8 / 10) / 2)
    assert json.loads(json.dumps(results)) == results


def test_the_table_has_a_line_for_each_metric(results):
    lines = render_tasks(results).splitlines()
    assert len(lines) == 2 + 2 * 3
    assert "majority" in lines[0]
    assert "pawsx_de" in lines[-1]


@pytest.mark.parametrize(
    ("task", "prompt"),
    [
        (
            "germeval2018",
            "Tweet: Was für ein schöner Abend! Danke.\n"
            "Frage: Ist dieser Tweet beleidigend?\nAntwort:",
        ),
        (
            "pawsx_de",
            "Satz 1: Der Hund läuft.\nSatz 2: Es läuft der Hund.\n"
            "Frage: Bedeuten beide Sätze dasselbe?\nAntwort:",
        ),
    ],
)
def test_the_questions_have_single_spaces(model_folder, task_data, task, prompt):
    samples = hf_samples(model_folder, [task], task_data)[task]
    assert samples[0]["arguments"] == [(prompt, " Nein"), (prompt, " Ja")]
    assert all("  " not in context + answer for s in samples for context, answer in s["arguments"])


def test_a_limit_takes_the_first_examples(model_folder, task_data):
    results = evaluate_tasks(model_folder, ["germeval2018"], task_data=task_data, limit=3)
    assert results["germeval2018"]["examples"] == 3


@pytest.mark.slow
def test_the_same_predictions_as_the_hf_model_on_all_of_germeval(tweet_model_folder, shared_data):
    from clp_jax.checkpoint.hf import load_model
    from clp_jax.checkpoint.hub import load_tokenizer
    from clp_jax.evaluate.harness import JaxLM

    tasks, task_data = ["germeval2018"], shared_data / "tasks"
    model = JaxLM(load_model(tweet_model_folder), load_tokenizer(tweet_model_folder), batch_size=32)
    ours = run.run_harness(model, run.load_tasks(tasks, task_data), limit=None)["germeval2018"]
    theirs = hf_samples(tweet_model_folder, tasks, task_data)["germeval2018"]
    assert len(ours) == 3532
    assert run.predictions(ours) == run.predictions(theirs)
    assert 300 < sum(run.predictions(ours)) < 3232
    np.testing.assert_allclose(
        [sample["filtered_resps"] for sample in ours],
        [sample["filtered_resps"] for sample in theirs],
        rtol=0,
        atol=1e-4,
    )


def test_an_unknown_task_is_refused_before_anything_is_loaded():
    with pytest.raises(UserError, match=r"Unknown task xnli.*germeval2018, pawsx_de"):
        evaluate_tasks("no-such-model", ["germeval2018", "xnli"])


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(UserError, match="limit: Input should be greater than 0"):
        evaluate_tasks("no-such-model", ["germeval2018"], limit=0)


def test_missing_task_data_are_reported(tmp_path):
    with pytest.raises(UserError, match=r"pawsx_de/test\.jsonl.*TASK/test\.jsonl"):
        evaluate_tasks("no-such-model", ["pawsx_de"], task_data=tmp_path)


def test_an_unreachable_hub_is_reported():
    with pytest.raises(UserError, match=r"germeval18.*TASK/test\.jsonl.*hub"):
        evaluate_tasks("no-such-model", ["germeval2018"])


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"text": "a", "label": "RUDE"}', "the label 'RUDE' is not one of OTHER, OFFENSE"),
        ('{"text": "a"}', r"test\.jsonl, line 1: no field label"),
        ('{"text": "a", ', r"test\.jsonl, line 1: not JSON"),
        ("", "no examples"),
    ],
)
def test_damaged_task_data_are_reported(tmp_path, line, fault):
    (tmp_path / "germeval2018").mkdir()
    (tmp_path / "germeval2018" / "test.jsonl").write_text(line)
    with pytest.raises(UserError, match=rf"data of germeval2018 cannot be read \(.*{fault}"):
        evaluate_tasks("no-such-model", ["germeval2018"], task_data=tmp_path)
