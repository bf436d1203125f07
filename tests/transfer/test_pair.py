import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from clp_jax.errors import UserError
from clp_jax.transfer.compose import predict_held_out
from clp_jax.transfer.methods import METHODS, Recipe

TABLE = "transformer.wte.weight"
PLAIN = [name for name in METHODS if name not in ("wechsel", "focus")]


@pytest.fixture(scope="module")
def setting(make_setting, pair, vectors):
    return make_setting(*pair, **vectors)


@pytest.fixture(scope="module")
def tables(pair):
    return [load_file(folder / "model.safetensors")[TABLE] for folder in pair]


def expected(oracle, setting, tables, method, problem, served):
    """The oracle's rows for the missing tokens that are served, from the files' tables."""
    source, helper = tables
    layout, vectors = setting.layout, setting.vectors
    missing = layout.missing[served]
    shared = source[layout.copied_source[: layout.anchors]]
    by_helper = problem()._replace(
        queries=helper[missing], anchors=helper[layout.anchor_helper], rows=shared,
        mean=source.mean(axis=0),
    )  # fmt: skip
    match method:
        case "focus":
            known = vectors.tokens[layout.anchor_helper].any(axis=1)
            queries = vectors.tokens[missing]
            anchors = vectors.tokens[layout.anchor_helper]
            return oracle.clp_sparse(
                by_helper._replace(queries=queries, anchors=anchors[known], rows=shared[known])
            )
        case "wechsel":
            known = vectors.source.any(axis=1)
            return oracle.clp_topk(
                by_helper._replace(
                    queries=vectors.target[missing], anchors=vectors.source[known],
                    rows=source[: len(known)][known],
                )
            )  # fmt: skip
        case "clp":
            return oracle.guarded_clp(by_helper)
        case "ridge" | "ridge-residual":
            rows = oracle.ridge if method == "ridge" else oracle.ridge_residual
            return rows(by_helper, setting.tables(plain(method))[TABLE].facts["strength"])
        case "ridge-joint":
            of_both, _, _, _ = setting._basis(TABLE, method)
            of_both = of_both._replace(queries=of_both.queries[served])
            return oracle.ridge(of_both, setting.tables(plain(method))[TABLE].facts["strength"])
        case _:
            return getattr(oracle, method.replace("-", "_"))(by_helper)


def plain(method):
    return Recipe(method, source_weight=1.0)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("random", "subword")])
def test_missing_rows_are_what_the_method_makes_of_the_files(
    setting, tables, oracle, row_error, method, problem
):
    table = setting.tables(plain(method))[TABLE]
    unknown = np.isin(setting.layout.missing, table.origins.get("fallback: mean", []))
    found = table.rows[setting.layout.missing[~unknown]]
    assert len(found)
    rows = expected(oracle, setting, tables, method, problem, ~unknown)
    assert row_error(found, rows).max() < 1e-5


@pytest.mark.parametrize(("method", "without"), [("focus", [20]), ("wechsel", [15, 20])])
def test_tokens_without_vectors_are_a_counted_fallback(setting, tables, method, without):
    table = setting.tables(plain(method))[TABLE]
    assert table.origins["fallback: mean"].tolist() == without
    np.testing.assert_allclose(table.rows[without], [tables[0].mean(axis=0)] * len(without))


def test_a_word_that_the_source_cannot_spell_is_a_counted_fallback(setting):
    """A tokenizer of whole words spells nothing that it does not know."""
    origins = setting.tables(plain("subword"))[TABLE].origins
    np.testing.assert_array_equal(origins["fallback: mean"], setting.layout.missing)


def test_the_methods_whose_inputs_are_there(make_setting, setting, pair, vectors):
    assert setting.methods() == [*METHODS]
    assert make_setting(*pair).methods() == PLAIN
    only_tokens = make_setting(*pair, token_vectors=vectors["token_vectors"])
    assert only_tokens.methods() == [*PLAIN, "focus"]


def without_common_tokens(folder):
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {
        t if t.startswith("<") and "|" not in t else f"{t}_": i for t, i in vocabulary.items()
    }
    file.write_text(json.dumps(tokenizer))


def test_missing_inputs_are_named(make_setting, pair, helper):
    bare = make_setting(*pair)
    for method, lack in (("focus", "token_vectors or data"), ("wechsel", "source_vectors and")):
        with pytest.raises(UserError, match=lack):
            bare.check(method)
    without_common_tokens(helper)
    alone = make_setting(pair[0], helper)
    assert alone.methods() == ["random", "mean", "subword"]
    with pytest.raises(UserError, match="no token in common, but ridge computes"):
        alone.check("ridge")


@pytest.mark.parametrize("method", ["subword", "random"])
def test_no_token_in_common_and_norms_to_match(make_setting, pair, helper, method):
    without_common_tokens(helper)
    alone = make_setting(pair[0], helper)
    table = alone.tables(Recipe(method, source_weight=0.5, match_spread=True))[TABLE]
    assert np.isfinite(table.rows).all()


def test_defaults_of_the_methods(setting):
    assert setting.defaults("clp") == Recipe("clp", 1.0, match_spread=False)
    assert setting.defaults("ridge") == Recipe("ridge", 1.0, match_spread=False)
    assert setting.defaults("wechsel") == Recipe("wechsel", 0.0, match_spread=False)


@pytest.mark.parametrize("method", ["random", "mean"])
def test_methods_without_a_held_out_token_have_no_error(setting, method):
    assert setting.held_out_errors(plain(method)) is None


@pytest.mark.parametrize("match_spread", [False, True])
def test_error_on_held_out_tokens_is_relative_to_the_mean_rows(setting, tables, match_spread):
    source, layout = tables[0], setting.layout
    held_out = np.arange(layout.anchors) % 10 == 0
    known = source[layout.copied_source[: layout.anchors]].astype(np.float64)
    basis = setting.inputs[TABLE].helper_rows()
    found = predict_held_out(METHODS["clp-topk"].method, basis, layout, held_out).rows
    if match_spread:
        center = found.mean(axis=0)
        found = center + (found - center) * (
            np.std(known - known.mean(axis=0)) / np.std(found - center)
        )
    error = np.square(found - known[held_out]).sum()
    error /= np.square(known[held_out] - source.mean(axis=0)).sum()
    recipe = Recipe("clp-topk", 1.0, match_spread=match_spread)
    assert setting.held_out_errors(recipe).mean() == pytest.approx(error, rel=1e-5)


def test_error_on_held_out_tokens_of_pieces_is_that_of_their_parts(make_setting, byte_pair):
    setting = make_setting(*byte_pair)
    source = load_file(byte_pair[0] / "model.safetensors")[TABLE].astype(np.float64)
    model = json.loads((byte_pair[0] / "tokenizer.json").read_text())["model"]
    merges = [merge.split() if isinstance(merge, str) else merge for merge in model["merges"]]
    parts = {model["vocab"][a + b]: [model["vocab"][a], model["vocab"][b]] for a, b in merges}
    ids = setting.layout.copied_source[: setting.layout.anchors : 10].tolist()
    assert {id in parts for id in ids} == {False, True}
    found = [source[parts[id]].mean(axis=0) if id in parts else source.mean(axis=0) for id in ids]
    errors = np.square(found - source[ids]).sum(axis=1)
    expected = errors / np.square(source[ids] - source.mean(axis=0)).sum(axis=1).mean()
    np.testing.assert_allclose(setting.held_out_errors(plain("subword")), expected, rtol=1e-5)


def test_error_on_held_out_tokens_of_a_map(make_setting, planted):
    setting = make_setting(*planted)
    assert setting.held_out_errors(plain("procrustes")).mean() < 1e-9
    assert setting.held_out_errors(plain("ridge")).mean() < 1e-5


def test_untied_heads_have_the_helpers_head(make_setting, source, helper):
    rng = np.random.default_rng(5)
    for folder, rows, dim in ((source, 16, 16), (helper, 25, 5)):
        tensors = load_file(folder / "model.safetensors")
        tensors["lm_head.weight"] = rng.normal(size=(rows, dim)).astype(np.float32)
        config = json.loads((folder / "config.json").read_text())
        if folder == source:
            save(folder, config | {"tie_word_embeddings": False}, tensors)
    tied = make_setting(source, helper)
    assert tied.helper_tables == {TABLE: TABLE, "lm_head.weight": TABLE}
    save(helper, config | {"tie_word_embeddings": False}, tensors)
    untied = make_setting(source, helper)
    assert untied.helper_tables == {TABLE: TABLE, "lm_head.weight": "lm_head.weight"}


def save(folder, config, tensors):
    from safetensors.numpy import save_file

    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
