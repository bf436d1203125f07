import json

from clp_jax.results import read_results


def test_a_metric_without_a_score_is_left_out(tmp_path):
    known = {"low": 0.4, "high": 0.6, "random": 0.5, "majority": None, "verdict": ""}
    metrics = {"acc": known | {"score": 0.5}, "empty": known | {"score": None}}
    task = {"examples": 9, "num_fewshot": 0, "metrics": metrics}
    (tmp_path / "results.json").write_text(json.dumps({"task": task}))
    [score] = read_results([tmp_path / "results.json"]).tasks
    assert (score.metric, score.verdict) == ("acc", "chance is not known")
