import pytest
from scipy import stats

from clp_jax.compare.comparison import Comparison
from clp_jax.compare.reach import group_by_seed, reach_best
from clp_jax.compare.subjects import open_subjects

from .conftest import write_run


def arms_of(paths):
    return group_by_seed(open_subjects(paths))


def test_runs_that_differ_in_their_seed_are_an_arm(two_arms):
    arms = arms_of([two_arms[3], *two_arms[:3]])
    assert [(arm.label, [run.label for run in arm.runs]) for arm in arms] == [
        ("replay", ["replay-0", "replay-1"]),
        ("german", ["german-0", "german-1"]),
    ]


def test_the_share_of_tokens_is_paired_by_seed_and_its_interval_is_students(two_arms):
    german, replay = arms_of(two_arms)
    found = reach_best(german, replay, "german")
    # Seed 0: 1.2 after 2,000 tokens. Seed 1: 1.26 lies between 1.52 and 1.24.
    tokens = [2000, 1000 + 1000 * (1.52 - 1.26) / (1.52 - 1.24)]
    shares = [value / 3000 for value in tokens]
    low, high = stats.t.interval(0.95, 1, sum(shares) / 2, stats.sem(shares))
    assert found.mark == pytest.approx(1.23)
    assert found.tokens == pytest.approx(sum(tokens) / 2)
    assert (found.share, found.low, found.high) == pytest.approx((sum(shares) / 2, low, high))
    assert found.flops_share == pytest.approx(found.share)
    never = reach_best(replay, german, "german")
    assert (never.missed, never.pairs, never.tokens) == (2, 2, None)


def test_one_seed_has_no_interval_and_a_text_that_is_only_forgotten_sets_no_mark(two_arms):
    german, replay = arms_of([two_arms[0], two_arms[2]])
    found = reach_best(german, replay, "german")
    assert (found.share, found.low, found.high) == (pytest.approx(2 / 3), None, None)
    assert reach_best(german, replay, "english") is None
    assert reach_best(german, replay, "french") is None


def test_texts_of_one_name_that_differ_are_noticed(tmp_path):
    for name, text in (("a", "x"), ("b", "y")):
        write_run(tmp_path / name, {"": [2.0, 1.0]}, text=text, train=name)
    subjects = open_subjects([tmp_path / "a", tmp_path / "b"])
    assert Comparison(subjects, {}, {}, {}).differing_texts("validation")
    assert not Comparison(subjects[:1], {}, {}, {}).differing_texts("validation")
