import json

import ml_dtypes
import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file

from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.errors import UserError
from clp_jax.mesh import single_device_mesh
from clp_jax.transfer.methods import METHODS
from clp_jax.transfer.stage import transfer_model
from clp_jax.vocabulary import compare_vocabularies

from ..marks import slow
from .conftest import used_by

TABLE, HEAD = "transformer.wte.weight", "lm_head.weight"


def weights(folder):
    return load_file(folder / "model.safetensors")


def change(folder, *, config=None, tensors=None):
    """Overwrite settings and tensors of a checkpoint; None removes one."""
    for file, load, save, changes in (
        ("config.json", lambda f: json.loads(f.read_text()), write_config, config),
        ("model.safetensors", load_file, lambda value, f: save_file(value, f), tensors),
    ):
        values = load(folder / file) | (changes or {})
        save({k: v for k, v in values.items() if v is not None}, folder / file)


def write_config(values, file):
    file.write_text(json.dumps(values))


def split(source, helper, table=TABLE, helper_table=TABLE):
    """How the vocabularies match, and the oracle's three inputs."""
    overlap = compare_vocabularies(source, helper)
    rows, known = weights(helper)[helper_table], overlap.anchors
    return overlap, (
        rows[overlap.missing_ids],
        rows[overlap.target_ids[known]],
        weights(source)[table][overlap.source_ids[known]],
    )


def copies(source, overlap, table=TABLE):
    return weights(source)[table][overlap.source_ids]


def test_every_row_equals_the_oracle(pair, tmp_path, mesh, oracle, row_error):
    manifest = transfer_model(*pair, tmp_path / "out", method="clp", mesh=mesh)
    new = weights(tmp_path / "out")[TABLE]
    overlap, inputs = split(*pair)
    np.testing.assert_array_equal(new[overlap.target_ids], copies(pair[0], overlap))
    assert row_error(new[overlap.missing_ids], oracle.guarded_clp(inputs)).max() < 1e-5
    others = np.delete(new, overlap.unassigned_ids, axis=0)
    np.testing.assert_allclose(new[overlap.unassigned_ids[0]], others.mean(axis=0), atol=1e-6)

    entry = manifest["tables"][TABLE]
    assert entry["rows"] == {
        "total": 21, "copied": 11, "mixed": 0, "role": len(overlap.target_ids) - 11,
        "combined": len(overlap.missing_ids) - 1, "fallback: top-k softmax": 1,
        "fallback: mean": 0, "padding": 1,
    }  # fmt: skip
    assert entry["facts"]["condition"]["0.0"] < 0 < entry["facts"]["condition"]["0.25"]
    with np.load(tmp_path / "out" / "transfer_origins.npz") as origins:
        ids = dict(origins)
    assert sorted(np.concatenate(list(ids.values()))) == list(range(21))
    assert set(ids["copied"]) | set(ids["role"]) == set(overlap.target_ids)
    assert set(ids["combined"]) | set(ids["fallback"]) == set(overlap.missing_ids)
    assert list(ids["padding"]) == list(overlap.unassigned_ids)


def test_strict_keeps_the_formula(pair, tmp_path, oracle, row_error):
    manifest = transfer_model(*pair, tmp_path / "out", method="clp", no_fallback=True)
    new = weights(tmp_path / "out")[TABLE]
    overlap, inputs = split(*pair)
    assert row_error(new[overlap.missing_ids], oracle.clp(inputs)).max() < 1e-5
    counts = manifest["tables"][TABLE]["rows"]
    assert counts["combined"] == len(overlap.missing_ids)
    assert not any(name.startswith("fallback") for name in counts)


@pytest.mark.slow
def test_equals_the_paper_on_real_tokenizers(real_pair, tmp_path, oracle, row_error):
    source, helper = real_pair
    manifest = transfer_model(source, helper, tmp_path / "out", method="clp", no_fallback=True)
    new = weights(tmp_path / "out")[TABLE]
    overlap, (missing, shared, rows) = split(source, helper)
    np.testing.assert_array_equal(new[overlap.target_ids], copies(source, overlap))
    some = np.random.default_rng(0).choice(len(missing), 400, replace=False)
    asked = missing[some], shared, rows
    error = row_error(new[overlap.missing_ids[some]], oracle.clp(asked))
    # A divisor that cancels magnifies rounding, so the promise is for all but the hopeless rows.
    conditioned = np.abs(oracle.coherence(asked)) > 0.01
    assert conditioned.sum() > 100
    assert error[conditioned].max() < 1e-5
    assert manifest["vocabulary"]["kinds"]["exact"]["tokens"] == 11_089


def test_everything_else_is_the_source(pair, tmp_path):
    transfer_model(*pair, tmp_path / "out", method="ridge")
    before, after = weights(pair[0]), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    for name in before.keys() - {TABLE}:
        np.testing.assert_array_equal(before[name], after[name])


def test_ids_of_the_target_tokenizer(source, helper, tmp_path):
    change(source, config={"pad_token_id": 3, "decoder_start_token_id": 0, "n_ctx": 8})
    generation = {"eos_token_id": [0, 1], "temperature": 0.7, "suppress_tokens": [5]}
    write_config(generation, source / "generation_config.json")
    out = tmp_path / "out"
    transfer_model(source, helper, out, method="clp")
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "unk_token_id": None}
    config = json.loads((out / "config.json").read_text())
    assert config["vocab_size"] == 21
    assert config["n_ctx"] == 8
    assert {key: config[key] for key in config if key.endswith("_token_id")} == ids
    generation = json.loads((out / "generation_config.json").read_text())
    assert generation == {"temperature": 0.7, **ids, "suppress_tokens": [5]}
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (out / file).read_bytes() == (helper / file).read_bytes()


def test_untied_heads_are_mapped_by_the_helpers_head(source, helper, tmp_path, oracle, row_error):
    rng = np.random.default_rng(5)
    rows = len(weights(source)[TABLE]), len(weights(helper)[TABLE])
    head, helper_head = (rng.normal(size=(n, d)) + 1 for n, d in zip(rows, (16, 5), strict=True))
    change(
        source,
        config={"tie_word_embeddings": False},
        tensors={HEAD: head.astype(np.float32)},
    )
    for name, folder in ((TABLE, "tied"), (HEAD, "untied")):
        if name == HEAD:
            change(
                helper,
                config={"tie_word_embeddings": False},
                tensors={HEAD: helper_head.astype(np.float32)},
            )
        transfer_model(source, helper, tmp_path / folder, method="clp", no_fallback=True)
        new = weights(tmp_path / folder)
        for table, helper_table in ((TABLE, TABLE), (HEAD, name)):
            overlap, inputs = split(source, helper, table, helper_table)
            assert row_error(new[table][overlap.missing_ids], oracle.clp(inputs)).max() < 1e-5
            expected = copies(source, overlap, table)
            np.testing.assert_array_equal(new[table][overlap.target_ids], expected)


def test_copy_of_a_tied_head_is_not_kept(source, helper, tmp_path):
    change(source, tensors={HEAD: weights(source)[TABLE]})
    transfer_model(source, helper, tmp_path / "out", method="clp")
    assert HEAD not in weights(tmp_path / "out")


def test_names_without_prefix_and_another_architecture(source, helper, tmp_path):
    transfer_model(source, helper, tmp_path / "out", method="clp")
    plain = {name.removeprefix("transformer."): t for name, t in weights(source).items()}
    save_file(plain, source / "model.safetensors")
    rows = weights(helper)[TABLE]
    save_file({"model.embed_tokens.weight": rows}, helper / "model.safetensors")
    change(helper, config={"model_type": "llama"})
    transfer_model(source, helper, tmp_path / "plain", method="clp")
    assert (tmp_path / "plain" / "model.safetensors").read_bytes() == (
        tmp_path / "out" / "model.safetensors"
    ).read_bytes()


def test_dtype_is_the_sources_or_the_chosen_one(source, helper, tmp_path):
    full = transfer_model(source, helper, tmp_path / "float32", method="clp")
    transfer_model(source, helper, tmp_path / "chosen", method="clp", dtype="bfloat16")
    chosen, config = weights(tmp_path / "chosen"), (tmp_path / "chosen" / "config.json")
    assert {t.dtype for t in chosen.values()} == {np.dtype(ml_dtypes.bfloat16)}
    assert json.loads(config.read_text())["dtype"] == "bfloat16"
    expected = weights(tmp_path / "float32")[TABLE].astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(chosen[TABLE], expected)

    halves = {name: t.astype(np.float16) for name, t in weights(source).items()}
    save_file(halves, source / "model.safetensors")
    half = transfer_model(source, helper, tmp_path / "kept", method="clp")
    assert {t.dtype for t in weights(tmp_path / "kept").values()} == {np.dtype(np.float16)}
    assert half["sha256"]["source_tables"] != full["sha256"]["source_tables"]


@pytest.mark.parametrize(
    "method",
    [*(name if name in ("clp", "random") else slow(name) for name in METHODS), "auto"],
)
def test_two_runs_are_byte_equal(pair, vectors, tmp_path, method):
    for name in ("one", "two"):
        options = {"method": method, "seed": 5, "trace": True} | used_by(method, vectors)
        transfer_model(*pair, tmp_path / name, **options)
    files = sorted((tmp_path / "one").iterdir())
    assert len(files) > 5
    for file in files:
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


@pytest.fixture(scope="module")
def german(text, tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "german.jsonl"
    file.write_text("".join(json.dumps({"text": document}) + "\n" for document in text))
    return str(file)


def test_vectors_are_trained_on_the_text(pair, german, tmp_path):
    pytest.importorskip("gensim")
    manifest = transfer_model(*pair, tmp_path / "out", method="focus", data=[german])
    assert manifest["tables"][TABLE]["rows"]["combined"] > 0


def test_only_what_is_random_depends_on_the_seed(pair, tmp_path):
    for method in ("random", "clp"):
        for seed in (0, 1):
            transfer_model(*pair, tmp_path / f"{method}{seed}", method=method, seed=seed)
    tables = {folder.name: weights(folder)[TABLE] for folder in tmp_path.iterdir()}
    missing = split(*pair)[0].missing_ids
    assert (tables["random0"][missing] != tables["random1"][missing]).all()
    np.testing.assert_array_equal(tables["clp0"], tables["clp1"])


def test_the_default_takes_the_best_by_the_shared_tokens(planted, tmp_path):
    manifest = transfer_model(*planted, tmp_path / "out")
    assert manifest["recipe"]["method"] == manifest["ranking"][0]["method"] == "ridge"
    assert manifest["ranked_by"] == "error on held-out shared tokens"


@pytest.mark.slow
def test_text_decides_where_there_is_some(pair, german, tmp_path):
    manifest, again = (
        transfer_model(*pair, tmp_path / name, data=[german], mesh=single_device_mesh())
        for name in ("one", "two")
    )
    assert again == manifest
    new, same = (weights(tmp_path / name)[TABLE] for name in ("one", "two"))
    np.testing.assert_array_equal(new, same)
    assert manifest["ranked_by"] == "bits per byte of text"
    best = manifest["ranking"][0]
    assert best["score"] < manifest["ranking"][-1]["score"]
    assert best["score"] == manifest["readings"]["new"]["bits_per_byte"]
    assert manifest["readings"]["source"]["bits_per_byte"] > 0
    assert manifest["text"] == {"documents": 8, "of": 8, "cut": []}
    card = (tmp_path / "one" / "README.md").read_text("utf-8")
    assert f"| the new model | {best['score']:.4f} |" in card
    assert {"clp", "ridge", "subword"} <= {row["method"] for row in manifest["ranking"]}


def test_padding_to_a_multiple_is_reported_and_never_generated(pair, tmp_path):
    out = tmp_path / "out"
    manifest = transfer_model(*pair, out, method="clp", pad_to_multiple_of=8)
    assert weights(out)[TABLE].shape == (24, 16)
    config = json.loads((out / "config.json").read_text())
    assert (config["vocab_size"], config["unpadded_vocab_size"]) == (24, 21)
    generation = json.loads((out / "generation_config.json").read_text())
    assert generation["suppress_tokens"] == [5, 21, 22, 23]
    assert manifest["tables"][TABLE]["rows"]["padding"] == 4


def test_an_extension_keeps_the_source_and_adds_tokens(byte_pair, tmp_path, oracle, row_error):
    source, helper = byte_pair
    out = tmp_path / "out"
    transfer_model(source, helper, out, method="clp", extend=True, no_fallback=True)
    old, german, new = map(transformers.AutoTokenizer.from_pretrained, (source, helper, out))
    vocabulary = new.get_vocab()
    assert vocabulary.items() >= old.get_vocab().items()
    sentence = "The cat sleeps on the roof."
    assert new(sentence)["input_ids"] == old(sentence)["input_ids"]
    assert (new.eos_token_id, len(new(" Häuser")["input_ids"])) == (old.eos_token_id, 1)

    before, after = weights(source)[TABLE], weights(out)[TABLE]
    np.testing.assert_array_equal(after[: len(old)], before[: len(old)])
    added = sorted(vocabulary.keys() - old.get_vocab().keys(), key=vocabulary.get)
    there, here = german.get_vocab(), old.get_vocab()
    both = sorted(there.keys() & here.keys() - {old.eos_token, german.eos_token})
    rows = weights(helper)[TABLE]
    inputs = (
        rows[[there[token] for token in added]],
        rows[[there[token] for token in both]],
        before[[here[token] for token in both]],
    )
    found = after[[vocabulary[token] for token in added]]
    assert row_error(found, oracle.clp(inputs)).max() < 1e-5
    assert_pytorch_runs(out, sentence + " Häuser", len(after))


@pytest.mark.parametrize("method", ["clp-topk", "ridge"])
def test_a_nearly_equal_token_is_copied_and_changes_no_other_row(source, helper, tmp_path, method):
    file = source / "tokenizer.json"
    file.write_text(file.read_text("utf-8").replace('"house"', '"KATZE"'))
    plain, fuzzy = (
        transfer_model(
            source, helper, tmp_path / str(wish), method=method, fuzzy=wish, source_weight=0.5
        )["tables"][TABLE]["rows"]
        for wish in (False, True)
    )
    assert (plain["copied"], fuzzy["copied"]) == (0, 1)
    assert plain["mixed"] == fuzzy["mixed"] == 11
    before, after = (weights(tmp_path / str(wish))[TABLE] for wish in (False, True))
    old, new = (load_tokenizer(folder).vocabulary for folder in (source, helper))
    np.testing.assert_array_equal(after[new["katze"]], weights(source)[TABLE][old["KATZE"]])
    real = [id for token, id in new.items() if token != "katze"]
    np.testing.assert_allclose(after[real], before[real], atol=1e-6)
    with np.load(tmp_path / "True" / "transfer_origins.npz") as origins:
        assert origins["copied"].tolist() == [new["katze"]]
        assert len(origins["mixed"]) == 11


@pytest.mark.parametrize("model_type", ["gpt2", "bloom"])
def test_pytorch_loads_and_runs_it(source, helper, tmp_path, model_type):
    if model_type == "bloom":
        tokenizer = load_tokenizer(source)
        config = transformers.BloomConfig(
            vocab_size=tokenizer.rows, hidden_size=16, n_layer=1, n_head=2
        )
        pytest.importorskip("torch")
        transformers.BloomForCausalLM(config).save_pretrained(source)
    transfer_model(source, helper, tmp_path / "out", method="clp")
    model = assert_pytorch_runs(tmp_path / "out", "die katze", 21)
    assert model.generation_config.eos_token_id == 1


def assert_pytorch_runs(folder, text, rows):
    torch = pytest.importorskip("torch")
    model, notes = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(notes.values())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(text, return_tensors="pt")
    logits = model(input_ids=inputs["input_ids"][:, :8]).logits
    assert logits.shape[2] == rows
    assert torch.isfinite(logits).all()
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    return model


def break_source_rows(source, helper):
    table = weights(source)[TABLE][:-1]
    change(source, config={"vocab_size": len(table)}, tensors={TABLE: table})


def break_source_config(source, helper):
    change(source, config={"vocab_size": 99})


def break_helper_rows(source, helper):
    change(helper, tensors={TABLE: weights(helper)[TABLE][:20]})


def share_nothing(source, helper):
    file = helper / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {
        t if t.startswith("<") and "|" not in t else f"{t}_": i for t, i in vocabulary.items()
    }
    file.write_text(json.dumps(tokenizer))


def break_a_row(source, helper):
    table = weights(helper)[TABLE]
    table[load_tokenizer(helper).vocabulary["katze"]] = np.inf
    change(helper, tensors={TABLE: table})


def break_the_body(source, helper):
    change(source, tensors={"transformer.ln_f.bias": np.full(16, np.nan, np.float32)})


def lose_a_layer(source, helper):
    change(source, tensors={"transformer.ln_f.bias": None})


def lose_the_head(source, helper):
    change(source, config={"tie_word_embeddings": False})


def name_two_tables(source, helper):
    change(helper, tensors={"encoder.embed_tokens.weight": weights(helper)[TABLE]})


def use_another_architecture(source, helper):
    change(source, config={"model_type": "t5"})


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (break_source_rows, r"source: transformer.wte.weight has 15 rows, .* ids up to 15"),
        (break_source_config, r"wte.weight has the shape \(16, 16\), not \(99, 16\)"),
        (break_helper_rows, r"helper: transformer.wte.weight has 20 rows, .* ids up to 20"),
        (share_nothing, "no token in common"),
        (break_a_row, "transformer.wte.weight holds NaN or infinite"),
        (break_the_body, "transformer.ln_f.bias holds NaN or infinite"),
        (lose_a_layer, "transformer.ln_f.bias is missing"),
        (lose_the_head, "lm_head.weight is missing"),
        (name_two_tables, "found encoder.embed_tokens.weight and transformer.wte.weight: keep one"),
        (use_another_architecture, "t5.* is not supported"),
    ],
)
def test_mistakes_are_reported_and_leave_nothing(source, helper, tmp_path, mistake, message):
    mistake(source, helper)
    with pytest.raises(UserError, match=message):
        transfer_model(source, helper, tmp_path / "out", method="clp")
    assert {entry.name for entry in tmp_path.iterdir()} == {"source", "helper"}


def test_strict_row_without_a_direction_is_an_error(source, helper, tmp_path):
    table = weights(helper)[TABLE]
    table[load_tokenizer(helper).vocabulary["sonne"]] = 0
    change(helper, tensors={TABLE: table})
    with pytest.raises(UserError, match="'sonne'"):
        transfer_model(source, helper, tmp_path / "strict", method="clp", no_fallback=True)
    manifest = transfer_model(source, helper, tmp_path / "guarded", method="clp")
    counts = manifest["tables"][TABLE]["rows"]
    assert (counts["fallback: mean"], counts["fallback: top-k softmax"]) == (1, 1)


def test_numbers_too_large_for_the_dtype_are_an_error(source, helper, tmp_path):
    change(source, tensors={TABLE: weights(source)[TABLE] * np.float32(1e6)})
    with pytest.raises(UserError, match="not finite in float16"):
        transfer_model(source, helper, tmp_path / "out", method="clp", dtype="float16")


def test_a_nan_score_is_an_error(source, helper, tmp_path):
    table = weights(helper)[TABLE]
    table[load_tokenizer(helper).vocabulary["hand"]] = 3e38
    change(helper, tensors={TABLE: table})
    with pytest.raises(UserError, match="helper has a score that is not finite"):
        transfer_model(source, helper, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_that_overflow_are_an_error(source, helper, tmp_path):
    table = weights(source)[TABLE]
    table[load_tokenizer(source).vocabulary["hand"]] = 3e38
    change(source, tensors={TABLE: table})
    options = {"method": "ridge", "match_spread": True, "spread_shrinkage": 1.0}
    with pytest.raises(UserError, match="not finite"):
        transfer_model(source, helper, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"method": "magic"}, "method: Input should be 'auto', 'random'"),
        ({"dtype": "int3"}, "dtype: Input should be 'bfloat16'"),
        ({"speed": 3}, "unknown key speed"),
        ({"no_fallback": True}, "no_fallback would be ignored, because the method is auto"),
        ({"method": "focus"}, "focus needs token vectors: give token_vectors or data"),
        (
            {"method": "wechsel"},
            "wechsel needs word vectors: give source_vectors and target_vectors",
        ),
        ({"method": "clp", "extend": True}, "source has no byte-level BPE tokenizer"),
    ],
)
def test_options_that_cannot_be_met(pair, tmp_path, wish, message):
    with pytest.raises(UserError, match=message):
        transfer_model(*pair, tmp_path / "out", **wish)
    assert not any(tmp_path.iterdir())


def test_several_helpers_and_one_method(pair, tmp_path):
    source, helper = pair
    with pytest.raises(UserError, match="Only the method auto ranks several helpers"):
        transfer_model(source, [helper, helper], tmp_path / "out", method="clp")


def test_existing_output_is_not_touched(source, helper, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        transfer_model(source, helper, tmp_path / "out", method="clp")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"
