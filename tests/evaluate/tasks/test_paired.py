import json

import numpy as np
import pytest

pytest.importorskip("lm_eval")
from clp_jax.errors import UserError
from clp_jax.evaluate.tasks import compare_results, read_results, render_comparison
from clp_jax.evaluate.tasks.scores import score_metric, written


def mean(values):
    return sum(values) / len(values)


def bits_per_byte(pairs):
    return -sum(pair[0] for pair in pairs) / sum(pair[1] for pair in pairs) / np.log(2)


def result(values, aggregate=mean, passages=None, higher_is_better=True):
    cluster_of = np.arange(len(values)) if passages is None else np.asarray(passages)
    score = score_metric(
        values, aggregate, cluster_of=cluster_of, higher_is_better=higher_is_better
    )
    return {
        "documents": f"{len(values)}",
        "passages": written(cluster_of.tolist()),
        "metrics": {"it": score.to_dict()},
    }


RIGHT, WRONG = [1.0] * 9 + [0.0] * 21, [0.0] * 10 + [1.0] * 1 + [0.0] * 19


def test_accuracies_are_tested_with_mcnemar():
    found = compare_results({"task": result(RIGHT)}, {"task": result(WRONG)})["task"]["it"]
    assert found["test"] == "McNemar"
    # Nine questions only the first answers, one only the second.
    assert found["p"] == found["p_corrected"] == pytest.approx(22 / 1024)
    assert found["difference"] == pytest.approx(8 / 30)
    assert found["low"] < 8 / 30 < found["high"]
    assert found["verdict"] == "better"


def test_many_tasks_are_corrected():
    ours = {f"{i}": result(RIGHT) for i in range(4)}
    others = {f"{i}": result(WRONG) for i in range(4)}
    found = compare_results(ours, others)
    assert [scores["it"]["p_corrected"] for scores in found.values()] == pytest.approx(
        [88 / 1024] * 4
    )
    assert found["0"]["it"]["verdict"] == "no difference"


def test_questions_on_one_passage_are_no_independent_evidence():
    passages = [0] * 9 + [1] + [2] * 20
    ours, others = result(RIGHT, passages=passages), result(WRONG, passages=passages)
    found = compare_results({"task": ours}, {"task": others})["task"]["it"]
    assert found["test"] == "bootstrap"
    assert found["verdict"] == "no difference"


def test_a_low_score_can_be_the_better_one():
    rng = np.random.default_rng(0)
    sizes = rng.integers(5, 50, 200)
    bits = rng.normal(1.0, 0.2, 200)
    ours, others = (
        [*zip((-bits * sizes * factor).tolist(), sizes.tolist(), strict=True)]
        for factor in (1.0, 1.02)
    )
    found = compare_results(
        {"task": result(ours, bits_per_byte, higher_is_better=False)},
        {"task": result(others, bits_per_byte, higher_is_better=False)},
    )["task"]["it"]
    assert found["difference"] < 0
    assert found["verdict"] == "better"


def test_results_of_other_examples_are_not_comparable():
    ours, others = {"task": result(RIGHT)}, {"task": result(WRONG[:-1])}
    found = compare_results(ours, others)
    assert found["task"]["it"]["verdict"] == "not comparable"
    assert found["task"]["it"]["p"] is None
    assert "not comparable" in render_comparison(found)
    assert compare_results(ours, {"another": result(RIGHT)}) == {}


def test_a_file_without_answers_is_refused(tmp_path):
    file = tmp_path / "result.json"
    file.write_text(json.dumps({"task": result(RIGHT)}))
    assert compare_results(read_results(file), read_results(file))["task"]["it"]["p"] == 1
    for wrong in ({"task": {"metrics": {}}}, {"task": 1}):
        file.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=r"result\.json has no answers to single examples"):
            read_results(file)
