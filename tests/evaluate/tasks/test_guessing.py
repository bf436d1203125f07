"""Random weights are at chance, planted answers above it, and paired tests see what differs."""

import pytest

pytest.importorskip("lm_eval")
from clp_jax.evaluate.names import PROMPTS, TASKS
from clp_jax.evaluate.tasks import compare_results, evaluate_tasks, render_comparison

from .published import write_published
from .stub import planted, random_weights, results_of

PAPER = [f"{task}_paper" for task in TASKS]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return write_published(tmp_path_factory.mktemp("many"), count=120)


@pytest.fixture(scope="module")
def most(many):
    """A model that knows more than half of the answers."""
    return results_of(planted(0.6, "a"), PAPER, task_data=many)


def test_random_weights_are_no_better_than_guessing_in_all_our_tasks(published):
    found = results_of(random_weights("a"), PROMPTS, task_data=published)
    assert set(found) == {*PROMPTS}
    for task in found.values():
        for metric, score in task["metrics"].items():
            if metric in ("acc", "acc_norm", "f1"):
                assert score["verdict"] == "no better than guessing"
                assert score["p_corrected"] > 0.05
    inside = [
        score["low"] <= score["shuffled"] <= score["high"]
        for task in found.values()
        for score in (task["metrics"].get("acc"),)
        if score is not None
    ]
    assert sum(inside) >= 0.9 * len(inside) == 0.9 * 21


def test_planted_answers_are_better_than_guessing(most):
    for task in most.values():
        for metric in ("acc", "f1"):
            assert task["metrics"][metric]["verdict"] == "better than guessing"


@pytest.mark.slow
def test_a_paired_test_sees_models_that_differ_and_not_seeds_of_one(most, many):
    seed = results_of(planted(0.6, "b"), PAPER, task_data=many)
    worse = results_of(planted(0.2, "c"), PAPER, task_data=many)
    for metric in ("acc", "f1"):
        for other, verdict in ((seed, "no difference"), (worse, "better")):
            verdicts = {
                scores[metric]["verdict"] for scores in compare_results(most, other).values()
            }
            assert verdicts == {verdict}
    reverse = compare_results(worse, most)
    assert {scores["acc"]["verdict"] for scores in reverse.values()} == {"worse"}
    assert "| worse" in render_comparison(reverse)


@pytest.mark.slow
def test_a_tiny_model_with_random_weights_is_at_chance(model_folder, published):
    found = evaluate_tasks(model_folder, ["paper"], task_data=published, batch_size=32)
    assert set(found) == {*PAPER, "clp_oscar_de"}
    for task in found.values():
        for score in task["metrics"].values():
            assert score["verdict"] in ("no better than guessing", "")
    for name in PAPER:
        accuracy = found[name]["metrics"]["acc"]
        assert accuracy["low"] <= accuracy["shuffled"] <= accuracy["high"]
