import json

from clp_jax.results import read_results


def test_a_metric_without_a_score_is_left_out(tmp_path):
    known = {"low": 0.4, "high": 0.6, "random": 0.5, "majority": None, "verdict": ""}
    metrics = {"acc": known | {"score": 0.5}, "empty": known | {"score": None}}
    task = {"examples": 9, "num_fewshot": 0, "metrics": metrics}
    (tmp_path / "results.json").write_text(json.dumps({"task": task}))
    [score] = read_results([tmp_path / "results.json"]).tasks
    assert (score.metric, score.verdict) == ("acc", "chance is not known")


def test_of_a_task_that_was_asked_twice_the_table_has_both_and_the_tests_the_first(tmp_path):
    for shots in (0, 4):
        scores = {"random": 0.5, "majority": 0.4, "low": 0.4, "high": 0.6, "verdict": "?"}
        metrics = {name: scores | {"score": shots / 10} for name in ("acc", "f1", "f1_cc")}
        task = {"examples": 9, "num_fewshot": shots, "metrics": metrics, "documents": "same"}
        (tmp_path / f"{shots}.json").write_text(json.dumps({"task": task}))
    results = read_results([tmp_path / "0.json", tmp_path / "4.json"])
    assert [score.shots for score in results.tasks] == [0] * 3 + [4] * 3
    assert [(score.metric, score.shots) for score in results.main_scores()] == [("f1", 0)]
    assert results.answers["task"]["num_fewshot"] == 0
