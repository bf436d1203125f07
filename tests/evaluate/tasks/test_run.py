import json

import numpy as np
import pytest
import yaml

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


QUESTIONS = [
    {"passage": passage, "question": question, "choices": choices, "gold": gold}
    for passage, question, choices, gold in (
        ("Die Katze sitzt.", "Wer sitzt?", ["Katze", "Hund"], 0),
        ("Die Katze sitzt.", "Was tut sie?", ["läuft", "sitzt", "liest"], 1),
        ("Der Hund liest ein Buch.", "Was liest er?", ["Brief", "Buch"], 1),
    )
]
OTHERS = {
    "planted_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{passage}} {{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "planted_word": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}}",
        "doc_to_target": " {{choices[gold]}}",
        "metric_list": [{"metric": "acc"}, {"metric": "perplexity", "higher_is_better": False}],
    },
    "planted_text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{passage}}",
        "metric_list": [{"metric": "bits_per_byte", "higher_is_better": False}],
    },
    "planted_answer": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[gold]}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match"}],
    },
}
"""Task files of every kind of request."""


@pytest.fixture(scope="module")
def include_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    rows = [json.dumps(row, ensure_ascii=False) for row in QUESTIONS]
    (folder / "rows.jsonl").write_text("\n".join(rows), "utf-8")
    files = {"data_files": {"test": str(folder / "rows.jsonl")}}
    for name, fields in OTHERS.items():
        data = {"task": name, "dataset_path": "json", "dataset_kwargs": files, "test_split": "test"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(data | fields | {"tag": "planted"}))
    group = {"group": "both_choices", "task": ["planted_choice", "planted_word"]}
    (folder / "group.yaml").write_text(yaml.safe_dump(group))
    return folder


@pytest.fixture(scope="module")
def results(model_folder, task_data):
    return evaluate_tasks(model_folder, TASKS, task_data=task_data, batch_size=8)


def loaded(tasks, include_path=None, task_data=None):
    return run.load_tasks(run.task_manager(tasks, include_path, task_data), tasks)


@pytest.fixture(autouse=True)
def only_the_tasks_that_are_given(monkeypatch):
    """The harness reads its fourteen thousand task files in ten seconds."""
    from lm_eval.tasks import TaskManager

    def quick(*arguments, **options):
        return TaskManager(*arguments, **(options | {"include_defaults": False}))

    monkeypatch.setattr("lm_eval.tasks.TaskManager", quick)


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
        output_path=tmp_path,
        log_samples=True,
    )
    assert set(ours) == {"planted_choice", "planted_word"}
    assert ours["planted_choice"]["num_fewshot"] == 1
    [file] = tmp_path.rglob("results_*.json")
    written = json.loads(file.read_text("utf-8"))["results"]["planted_choice"]
    assert written["acc,none"] == ours["planted_choice"]["metrics"]["acc"]["score"]
    assert len([*tmp_path.rglob("samples_planted_choice_*.jsonl")]) == 1


@pytest.mark.slow
def test_the_suites_name_tasks_of_the_harness():
    from lm_eval.tasks.manager import TaskManager

    known = TaskManager().all_tasks
    for file in (run.FOLDER / "suites").glob("*.yaml"):
        suite = yaml.safe_load(file.read_text())
        assert suite["group"] == file.stem
        assert len(set(suite["task"])) > 10
        assert set(suite["task"]) <= set(known)


def test_too_many_examples_before_a_question_are_refused(include_path):
    with pytest.raises(UserError, match="planted_word has 3 examples, too few for 3 before each"):
        evaluate_tasks("no-such-model", ["planted_word"], include_path=include_path, num_fewshot=3)


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
            evaluate_tasks("no-such-model", ["pawsx_de"], output_path=output, log_samples=True)


def test_results_hold_counts_and_baselines(results):
    task = results["germeval2018"]
    assert task["examples"] == 6
    accuracy = task["metrics"]["acc"]
    assert accuracy["random"] == pytest.approx(1 / 2)
    assert accuracy["majority"] == pytest.approx(4 / 6)
    assert task["metrics"]["f1"]["majority"] == pytest.approx((8 / 10) / 2)
    assert json.loads(json.dumps(results)) == results


def test_the_table_has_a_line_for_each_metric(results):
    lines = render_tasks(results).splitlines()
    assert len(lines) == 2 + 2 * 3
    assert "majority" in lines[0]
    assert "guessing" in lines[-1]


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
    samples = by_the_hf_model(model_folder, [task], task_data=task_data).results["samples"][task]
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
    ours, theirs = (
        [sample["filtered_resps"] for sample in found.results["samples"]["germeval2018"]]
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


def test_an_unknown_task_is_refused_before_anything_is_loaded():
    with pytest.raises(UserError, match=r"no task germeval2081: did you mean germeval2018"):
        evaluate_tasks("no-such-model", ["pawsx_de", "germeval2081"])


def test_a_task_that_runs_programs_is_refused(include_path, tmp_path):
    program = yaml.safe_load((include_path / "planted_word.yaml").read_text())
    program |= {"task": "program", "unsafe_code": True}
    (tmp_path / "program.yaml").write_text(yaml.safe_dump(program))
    with pytest.raises(UserError, match="program runs the programs that a model writes: leave"):
        evaluate_tasks("no-such-model", ["program", "program"], include_path=tmp_path)


def test_a_folder_of_tasks_that_is_not_there_or_damaged_is_reported(tmp_path):
    with pytest.raises(UserError, match="none is not a folder"):
        evaluate_tasks("no-such-model", ["pawsx_de"], include_path=tmp_path / "none")
    (tmp_path / "broken.yaml").write_text("task: broken\ndataset_path: [")
    with pytest.raises(UserError, match="There is no task broken"):
        evaluate_tasks("no-such-model", ["broken"], include_path=tmp_path)


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
