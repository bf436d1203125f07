import hashlib
import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.errors import UserError
from clp_jax.transfer.stage import transfer_model
from clp_jax.vocabulary import compare_vocabularies

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
    """The overlap and the oracle's three inputs."""
    overlap = compare_vocabularies(source, helper)
    rows = weights(helper)[helper_table]
    return overlap, (
        rows[overlap.missing_ids],
        rows[overlap.target_ids],
        weights(source)[table][overlap.source_ids],
    )


def test_every_row_is_what_it_should_be(source, helper, tmp_path, mesh, oracle, row_error):
    manifest = transfer_model(source, helper, tmp_path / "out", mesh=mesh)
    new = weights(tmp_path / "out")[TABLE]
    overlap, inputs = split(source, helper)
    np.testing.assert_array_equal(new[overlap.target_ids], inputs[2])
    ill = overlap.missing_ids == load_tokenizer(helper).get_vocab()["mond"]
    formula, nearest = oracle.clp(*inputs), oracle.topk(*inputs)
    assert row_error(new[overlap.missing_ids][~ill], formula[~ill]).max() < 1e-5
    assert row_error(new[overlap.missing_ids][ill], nearest[ill]).max() < 1e-5
    others = np.delete(new, overlap.gap_ids, axis=0)
    np.testing.assert_allclose(new[overlap.gap_ids[0]], others.mean(axis=0), atol=1e-6)

    counts = manifest["tables"][TABLE]["rows"]
    assert counts == {"total": 21, "copied": 14, "combined": 5, "fallback": 1, "padding": 1}
    assert manifest["tables"][TABLE]["condition"]["negative"] == 1


def test_strict_keeps_the_formula(source, helper, tmp_path, oracle, row_error):
    manifest = transfer_model(source, helper, tmp_path / "out", strict=True)
    new = weights(tmp_path / "out")[TABLE]
    overlap, inputs = split(source, helper)
    assert row_error(new[overlap.missing_ids], oracle.clp(*inputs)).max() < 1e-5
    counts = manifest["tables"][TABLE]["rows"]
    assert (counts["combined"], counts["fallback"]) == (6, 0)
    assert manifest["tables"][TABLE]["condition"]["below_minimum"] == 1


def test_equals_the_paper_on_real_tokenizers(real_pair, tmp_path, mesh, oracle, row_error):
    source, helper = real_pair
    manifest = transfer_model(source, helper, tmp_path / "out", strict=True, mesh=mesh)
    new = weights(tmp_path / "out")[TABLE]
    overlap, (missing, shared, rows) = split(source, helper)
    np.testing.assert_array_equal(new[overlap.target_ids], rows)
    some = np.random.default_rng(0).choice(len(missing), 400, replace=False)
    error = row_error(new[overlap.missing_ids[some]], oracle.clp(missing[some], shared, rows))
    # A divisor that cancels magnifies rounding, so the promise is for all but the hopeless rows.
    conditioned = np.abs(oracle.condition(missing[some], shared)) > 0.01
    assert conditioned.sum() > 100
    assert error[conditioned].max() < 1e-5
    assert manifest["vocabulary"]["kinds"]["exact"]["tokens"] == 11_089


def test_everything_else_is_the_source(source, helper, tmp_path):
    transfer_model(source, helper, tmp_path / "out")
    before, after = weights(source), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    for name in before.keys() - {TABLE}:
        np.testing.assert_array_equal(before[name], after[name])


def test_ids_of_the_target_tokenizer(source, helper, tmp_path):
    change(source, config={"pad_token_id": 3, "decoder_start_token_id": 0, "n_ctx": 8})
    generation = {"eos_token_id": [0, 1], "temperature": 0.7, "suppress_tokens": [5]}
    write_config(generation, source / "generation_config.json")
    out = tmp_path / "out"
    transfer_model(source, helper, out)
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "unk_token_id": None}
    config = json.loads((out / "config.json").read_text())
    assert config["vocab_size"] == 21
    assert config["n_ctx"] == 8
    assert {key: config[key] for key in config if key.endswith("_token_id")} == ids
    generation = json.loads((out / "generation_config.json").read_text())
    assert generation == {"temperature": 0.7, **ids}
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
        transfer_model(source, helper, tmp_path / folder, strict=True)
        new = weights(tmp_path / folder)
        for table, helper_table in ((TABLE, TABLE), (HEAD, name)):
            overlap, inputs = split(source, helper, table, helper_table)
            assert row_error(new[table][overlap.missing_ids], oracle.clp(*inputs)).max() < 1e-5
            np.testing.assert_array_equal(new[table][overlap.target_ids], inputs[2])


def test_copy_of_a_tied_head_is_not_kept(source, helper, tmp_path):
    change(source, tensors={HEAD: weights(source)[TABLE]})
    transfer_model(source, helper, tmp_path / "out")
    assert HEAD not in weights(tmp_path / "out")


def test_names_without_prefix_and_another_architecture(source, helper, tmp_path):
    transfer_model(source, helper, tmp_path / "out")
    plain = {name.removeprefix("transformer."): t for name, t in weights(source).items()}
    save_file(plain, source / "model.safetensors")
    rows = weights(helper)[TABLE]
    save_file({"model.embed_tokens.weight": rows}, helper / "model.safetensors")
    change(helper, config={"model_type": "llama"})
    transfer_model(source, helper, tmp_path / "plain")
    assert (tmp_path / "plain" / "model.safetensors").read_bytes() == (
        tmp_path / "out" / "model.safetensors"
    ).read_bytes()


def test_dtype_is_the_sources_or_the_chosen_one(source, helper, tmp_path):
    full = transfer_model(source, helper, tmp_path / "float32")
    transfer_model(source, helper, tmp_path / "chosen", dtype="bfloat16")
    chosen, config = weights(tmp_path / "chosen"), (tmp_path / "chosen" / "config.json")
    assert {t.dtype for t in chosen.values()} == {np.dtype(ml_dtypes.bfloat16)}
    assert json.loads(config.read_text())["dtype"] == "bfloat16"
    expected = weights(tmp_path / "float32")[TABLE].astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(chosen[TABLE], expected)

    halves = {name: t.astype(np.float16) for name, t in weights(source).items()}
    save_file(halves, source / "model.safetensors")
    half = transfer_model(source, helper, tmp_path / "kept")
    assert {t.dtype for t in weights(tmp_path / "kept").values()} == {np.dtype(np.float16)}
    assert half["sha256"]["source_tables"] != full["sha256"]["source_tables"]


def test_manifest_accounts_for_everything(source, helper, tmp_path):
    manifest = transfer_model(source, helper, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "transfer.json").read_text("utf-8")) == manifest
    entry = manifest["tables"][TABLE]
    rows = dict(entry["rows"])
    assert rows.pop("total") == sum(rows.values()) == len(weights(tmp_path / "out")[TABLE])
    assert manifest["arguments"] == {
        "source": str(source),
        "helper": str(helper),
        "method": "clp",
        "strict": False,
        "dtype": None,
    }
    table = weights(source)[TABLE]
    assert manifest["sha256"]["source_tables"][TABLE] == hashlib.sha256(table).hexdigest()
    assert entry["norm_quantiles"]["source"]["1.0"] == pytest.approx(
        np.linalg.norm(table, axis=1).max()
    )
    assert manifest["versions"]["jax"]
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "| 14 |" in card
    assert "has not been trained" in card
    assert str(tmp_path) not in card


def test_twice_is_the_same_to_the_byte(source, helper, tmp_path):
    for name in ("one", "two"):
        transfer_model(source, helper, tmp_path / name)
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


@pytest.mark.parametrize("model_type", ["gpt2", "bloom"])
def test_pytorch_loads_and_runs_it(source, helper, tmp_path, model_type):
    torch = pytest.importorskip("torch")
    import transformers

    if model_type == "bloom":
        tokenizer = load_tokenizer(source)
        config = transformers.BloomConfig(
            vocab_size=len(tokenizer), hidden_size=16, n_layer=1, n_head=2
        )
        transformers.BloomForCausalLM(config).save_pretrained(source)
    transfer_model(source, helper, tmp_path / "out")
    model, notes = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(notes.values())
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    logits = model(**tokenizer("die katze", return_tensors="pt")).logits
    assert logits.shape == (1, 2, 21)
    assert torch.isfinite(logits).all()
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 1


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
    table[load_tokenizer(helper).get_vocab()["katze"]] = np.nan
    change(helper, tensors={TABLE: table})


def lose_a_layer(source, helper):
    change(source, tensors={"transformer.ln_f.bias": None})


def lose_the_head(source, helper):
    change(source, config={"tie_word_embeddings": False})


def lose_the_table(source, helper):
    change(helper, tensors={TABLE: None})


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
        (break_a_row, r"1 new rows are not finite .* 'katze'"),
        (lose_a_layer, "transformer.ln_f.bias is missing"),
        (lose_the_head, "lm_head.weight is missing"),
        (lose_the_table, "there is none"),
        (name_two_tables, "there is encoder.embed_tokens.weight, transformer"),
        (use_another_architecture, "t5.* is not supported"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(source, helper, tmp_path, mistake, message):
    mistake(source, helper)
    with pytest.raises(UserError, match=message):
        transfer_model(source, helper, tmp_path / "out")
    assert {entry.name for entry in tmp_path.iterdir()} == {"source", "helper"}


def test_strict_row_without_a_direction_is_an_error(source, helper, tmp_path):
    table = weights(helper)[TABLE]
    table[load_tokenizer(helper).get_vocab()["sonne"]] = 0
    change(helper, tensors={TABLE: table})
    with pytest.raises(UserError, match="'sonne'"):
        transfer_model(source, helper, tmp_path / "strict", strict=True)
    manifest = transfer_model(source, helper, tmp_path / "guarded")
    assert manifest["tables"][TABLE]["rows"]["fallback"] == 2


def test_numbers_too_large_for_the_dtype_are_an_error(source, helper, tmp_path):
    change(source, tensors={TABLE: weights(source)[TABLE] * np.float32(1e6)})
    with pytest.raises(UserError, match="not finite in float16"):
        transfer_model(source, helper, tmp_path / "out", dtype="float16")


@pytest.mark.parametrize("wish", [{"method": "magic"}, {"dtype": "int3"}])
def test_unknown_wishes(source, helper, tmp_path, wish):
    with pytest.raises(UserError, match="is not one of"):
        transfer_model(source, helper, tmp_path / "out", **wish)


def test_existing_output_is_not_touched(source, helper, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        transfer_model(source, helper, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"
