from dataclasses import replace

import pytest
from scipy.stats import ttest_rel

from clp_jax.errors import UserError
from clp_jax.mesh import make_mesh
from clp_jax.transfer.calibration import SCORED_WINDOWS
from clp_jax.transfer.config import TransferConfig
from clp_jax.transfer.methods import METHODS, Recipe
from clp_jax.transfer.selection import (
    FINALISTS,
    SCREENED,
    Choice,
    Score,
    _rank,
    candidates,
    make_tables,
    ordered,
    rank_by_overlap,
    rank_by_text,
    rows_of,
    with_other_shares,
)
from clp_jax.transfer.short_training import train_tables
from clp_jax.transfer.stage import choose

TABLE = "transformer.wte.weight"


@pytest.fixture(scope="module")
def setting(make_setting, pair, text):
    return make_setting(*pair, text)


@pytest.fixture(scope="module")
def scores(setting):
    return rank_by_text([setting])


def test_every_method_is_tried_and_maps_with_matched_norms(setting):
    left_out = {"random", "mean", "sava", "flor", "omp"}
    methods = [method for method in setting.methods() if method not in left_out]
    assert "focus" in methods
    assert candidates(setting) == [
        Recipe(method, 1.0, norms)
        for method in methods
        for norms in ((False, True) if METHODS[method].maps else (False,))
    ]


def test_all_are_screened_and_the_best_judged_on_more_text(setting, scores):
    """The best methods also with other shares: pieces have none, a token is spelled by itself."""
    finals = [score for score in scores if score.windows == SCORED_WINDOWS]
    others = scores[len(finals) :]
    calibrated = [score.recipe for score in finals if score.recipe.calibrate]
    plain = [score.recipe for score in finals if not score.recipe.calibrate]
    assert len(plain) == FINALISTS
    firsts = {recipe.match_spread: recipe for recipe in reversed(plain)}
    assert {replace(recipe, calibrate=False) for recipe in calibrated} == {*firsts.values()}
    assert {score.windows for score in others} == {SCREENED}
    judged = {replace(score.recipe, calibrate=False) for score in finals}
    tried = judged | {score.recipe for score in others}
    whole = {recipe for recipe in tried if recipe.source_weight == 1}
    assert whole == {*candidates(setting)}
    best = {recipe.method for recipe in tried - whole}
    assert 0 < len(best) <= FINALISTS
    assert tried - whole == {*with_other_shares(setting, best)}
    assert with_other_shares(setting, ["clp", "ridge", "subword"]) == [
        Recipe("clp", 0.5),
        Recipe("clp", 0.25),
        *(Recipe("ridge", share, norms) for share in (0.5, 0.25) for norms in (False, True)),
    ]
    for part in (finals, others):
        values = [score.value for score in part]
        assert values == sorted(values)
        assert len({*values}) > len(values) / 2


def test_a_score_is_the_loss_of_the_recipe(setting, scores):
    for score in (*(score for score in scores if score.windows == SCORED_WINDOWS), scores[-1]):
        rows = rows_of(make_tables(setting, score.recipe))
        assert setting.evaluator.loss(rows, score.windows) == score.value


def test_training_chooses_among_the_best(setting, scores, monkeypatch):
    """Of the candidates that are best before training, the one that is best after it."""
    few = [score for score in scores if not score.recipe.calibrate][::5]
    monkeypatch.setattr("clp_jax.transfer.selection._screen", lambda _, recipes: [
        replace(score, windows=SCREENED) for score in few
    ] if len(recipes) > 4 else [])  # fmt: skip
    found = rank_by_text([setting], steps=2)
    finals, others = found[:FINALISTS], found[FINALISTS:]
    assert {(score.steps, score.windows) for score in finals} == {(2, SCORED_WINDOWS)}
    assert [score.value for score in finals] == sorted(score.value for score in finals)
    for score in finals:
        rows = rows_of(make_tables(setting, score.recipe))
        assert score.start == setting.evaluator.loss(rows, SCORED_WINDOWS)
        trained = train_tables(setting.evaluator, rows, 2)
        assert score.value == setting.evaluator.loss(trained, SCORED_WINDOWS) != score.start
    assert {(score.steps, score.start) for score in others} == {(0, None)}
    described = Choice(setting, found[0].recipe, found).to_dict()
    assert described["ranked_by"] == "bits per byte of text after training of the new rows"
    first, *_, last = described["ranking"]
    assert (first["steps"], first["start"]) == (2, finals[0].start)
    assert "start" not in last


@pytest.mark.slow
def test_eight_devices_choose_as_one(make_setting, pair, text, setting, monkeypatch):
    recipes = [Recipe("ridge", 1.0), Recipe("clp-topk", 1.0), Recipe("subword", 1.0)]
    monkeypatch.setattr("clp_jax.transfer.selection.candidates", lambda _: recipes)
    spread = make_setting(*pair, text)
    spread.mesh = make_mesh(2, 2, 2)
    for inputs in spread.inputs.values():
        inputs.mesh = spread.mesh
    one, eight = rank_by_text([setting]), rank_by_text([spread])
    assert [score.recipe for score in eight] == [score.recipe for score in one]
    values = [score.value for score in one]
    assert [score.value for score in eight] == pytest.approx(values, abs=1e-6)


def test_equal_scores_keep_the_order_in_which_they_were_tried(setting):
    """Devices add up in different orders, so the last digits are no reason to prefer one."""
    tried = [Score(setting, Recipe(name, 1.0), value) for name, value in
             (("clp", 2.0 + 2e-8), ("ridge", 2.0), ("omp", 2.0 + 1e-8), ("mean", 1.9))]  # fmt: skip
    assert [score.recipe.method for score in ordered(tried)] == ["mean", "clp", "ridge", "omp"]


def test_the_choice_is_the_lowest_and_the_ranking_sorted(setting, scores, monkeypatch):
    monkeypatch.setattr("clp_jax.transfer.stage.rank_by_text", lambda *_: scores)
    choice = choose([setting], TransferConfig(data=("text",)))
    values = [score.value for score in choice.scores]
    assert (choice.recipe, choice.pair) == (choice.scores[0].recipe, setting)
    described = choice.to_dict()
    assert described["recipe"] == choice.recipe.to_dict()
    assert described["ranked_by"] == "bits per byte of text"
    assert [row["score"] for row in described["ranking"]] == values
    assert described["ranking"][0].items() >= choice.recipe.to_dict().items()


def test_without_text_a_rotation_is_never_chosen_even_where_it_is_planted(make_setting, planted):
    setting = make_setting(*planted)
    choice = choose([setting], TransferConfig())
    assert choice.recipe == setting.defaults(choice.recipe.method)
    assert choice.recipe.method.startswith("ridge")
    rotated = setting.held_out_errors(Recipe("procrustes", 1.0)).mean()
    assert rotated < choice.scores[0].value < 1e-5
    assert choice.to_dict()["ranked_by"] == "error on held-out shared tokens"
    scored = {score.recipe.method for score in choice.scores}
    assert scored == set(setting.methods()) - {
        "mean", "random", "procrustes", "sava", "flor", "omp",
    }  # fmt: skip


def test_the_best_of_several_helpers_is_taken(make_setting, planted, helper):
    settings = [make_setting(planted[0], name) for name in (helper, planted[1])]
    choice = choose(settings, TransferConfig())
    assert choice.pair is settings[1]
    ranked = [row["helper"] for row in choice.to_dict()["ranking"]]
    assert ranked[0] == str(planted[1])
    assert ranked.count(str(helper)) == len(ranked) / 2
    values = [round(score.value, 6) for score in choice.scores]
    assert values == sorted(values)


def test_kept_rows_are_neither_mixed_nor_calibrated(make_setting, pair, text):
    setting = make_setting(*pair, text)
    setting.layout = replace(setting.layout, keeps=True)
    seen = rank_by_text([setting])
    assert {(s.recipe.source_weight, s.recipe.calibrate) for s in seen} == {(1.0, False)}
    assert setting.defaults("ridge").source_weight == 1.0


def test_a_named_method_has_its_defaults_except_what_is_asked(setting):
    def recipe(**options):
        return choose([setting], TransferConfig(**options)).recipe

    assert recipe(method="ridge") == Recipe("ridge", 1.0)
    assert recipe(method="ridge", source_weight=0.0, match_spread=True) == Recipe(
        "ridge", 0.0, match_spread=True
    )
    assert recipe(method="clp", no_fallback=True) == Recipe("clp", 1.0, no_fallback=True)
    assert recipe(method="clp", calibrate=True, data=("x",)) == Recipe("clp", 1.0, calibrate=True)


def test_given_constants_reach_the_methods_that_have_them(make_setting, pair):
    setting = make_setting(*pair, strength=0.5)
    recipe = setting.defaults("ridge")
    assert recipe.to_dict()["constants"] == {"strength": 0.5, "count_exponent": 0.5}
    (table,) = setting.tables(recipe).values()
    assert table.facts["strength"] == 0.5
    assert setting.defaults("clp") == Recipe("clp", 1.0)


def test_auto_leaves_out_focus_where_its_vectors_cannot_be_trained(
    make_setting, pair, text, monkeypatch
):
    def fail(*_, **__):
        raise UserError("gensim is not installed")

    monkeypatch.setattr("clp_jax.transfer.external_vectors.train_token_vectors", fail)
    assert "focus" not in make_setting(*pair, text).methods()
    with pytest.raises(UserError, match="gensim is not installed"):
        make_setting(*pair, text, method="focus")


def test_a_calibrated_recipe_expects_what_the_text_has(setting):
    plain, calibrated = (
        make_tables(setting, Recipe("mean", 1.0, calibrate=wish))[TABLE].rows
        for wish in (False, True)
    )
    assert setting.evaluator.loss({TABLE: calibrated}) < setting.evaluator.loss({TABLE: plain})


def test_pieces_come_before_methods_that_are_worse_than_the_mean_row(setting):
    errors = {"ridge": 0.8, "clp": 1.2, "subword": 1.5}
    scores = [Score(setting, Recipe(name, 1.0), error) for name, error in errors.items()]
    ranking = sorted(scores, key=_rank)
    assert [score.recipe.method for score in ranking] == ["ridge", "subword", "clp"]


def test_scores_of_the_overlap_are_the_settings(make_setting, planted):
    setting = make_setting(*planted)
    ranking = rank_by_overlap([setting])
    best, *others = (setting.held_out_errors(score.recipe) for score in ranking)
    assert [score.value for score in ranking] == [errors.mean() for errors in (best, *others)]
    assert ranking[0].behind is None
    for score, errors in zip(ranking[1:], others, strict=True):
        assert score.recipe.source_weight == setting.defaults(score.recipe.method).source_weight
        assert score.behind == pytest.approx(ttest_rel(errors, best).statistic)
    assert {score.recipe.match_spread for score in ranking} == {False, True}
    assert Choice(setting, Recipe("mean", 1.0)).to_dict()["ranking"] == []
