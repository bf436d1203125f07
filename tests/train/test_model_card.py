import json

from huggingface_hub import ModelCard

from clp_jax.checkpoint.card import CARD, read_metadata, render_card
from clp_jax.config import RunConfig
from clp_jax.train.model_card import run_card

CORPORA = "| corpus | tokens |"


def config(init, validation="corpora/held-out"):
    return RunConfig.from_dict(
        {
            "model": {"path": "/somewhere/private/gpt2-german", "init": init},
            "data": {"train": "corpora/german", "validation": validation},
            "train": {"out": "runs/german", "steps": 10, "batch_size": 4},
        }
    )


def test_it_says_what_was_done_and_nothing_about_the_machine(tmp_path):
    card = run_card(config("pretrained"), CORPORA, tmp_path)
    assert "\n# german\n" in card
    assert "the weights of `gpt2-german`" in card
    assert "10 steps of 4 sequences of 1,024 tokens: 40,960 tokens" in card
    assert f"\n\n{CORPORA}\n\n" in card
    assert "private" not in card
    assert "perplexity" not in card
    assert "new weights in the shape of `gpt2-german`" in run_card(
        config("random"), CORPORA, tmp_path
    )


def test_it_names_the_last_perplexity(tmp_path):
    lines = [
        {"tokens": tokens, "train/loss": 1.0}
        | {f"validation/{unit}_perplexity": value for unit in ("token", "word", "byte")}
        for tokens, value in ((0, 900.0), (40_960, 12.5))
    ]
    card = run_card(
        config("pretrained"), CORPORA, tmp_path, [*lines, {"tokens": 40_960, "train/loss": 1.0}]
    )
    assert "perplexity on `corpora/held-out` after 40,960 tokens" in card
    assert "12.5 per token, 12.5 per word, 12.5 per byte" in card
    assert "9.814 after 0 tokens, 3.644 after 40,960 tokens" in card
    bits, perplexity = ModelCard(card).data.eval_results
    assert (bits.dataset_name, bits.metric_type, bits.metric_value) == (
        "held-out",
        "bits_per_byte",
        3.6439,
    )
    assert (perplexity.metric_name, perplexity.metric_value) == ("perplexity per byte", 12.5)


def test_it_shows_what_was_gained_and_what_was_forgotten(tmp_path):
    lines = [
        {"tokens": 100 * step}
        | {
            f"validation/{name}/{unit}_perplexity": 2.0**bits
            for name, bits in (("German", 4 - step / 10), ("English", 1 + step / 10))
            for unit in ("token", "word", "byte")
        }
        for step in range(21)
    ]
    sets = {"German": "corpora/de/heldout", "English": "corpora/en/heldout"}
    card = run_card(config("pretrained", sets), CORPORA, tmp_path, lines)
    rows = dict(line.strip("| ").split(" | ") for line in card.splitlines() if "corpora/" in line)
    assert rows["perplexity on `corpora/en/heldout` (English) after 2,000 tokens"].startswith("8 ")
    points = ((0, 4.0, 1.0), (500, 3.5, 1.5), (1000, 3.0, 2.0), (1500, 2.5, 2.5), (2000, 2.0, 3.0))
    for column, name in enumerate(sets.values(), 1):
        found = next(
            row for key, row in rows.items() if key.startswith(f"bits per byte on `{name}`")
        )
        assert found == ", ".join(f"{p[column]:.3f} after {p[0]:,} tokens" for p in points)


def test_the_story_before_the_run_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus = tmp_path / "corpora" / "german"
    corpus.mkdir(parents=True)
    sources = [{"input": "hf://oscar-corpus/OSCAR-2201:de@train"}, {"input": "mine.jsonl"}]
    recipe = {"sources": sources, "clean": {"language": "de"}}
    (corpus / "manifest.json").write_text(json.dumps({"recipe": recipe}))
    known = {"language": "en", "license": "mit", "base_model": "org/base", "tags": ["clp-transfer"]}
    (tmp_path / CARD).write_text(render_card("start", known, ""), "utf-8")
    manifest = {
        "arguments": {"source": "org/base", "helper": "org/helper"},
        "recipe": {
            "method": "ridge",
            "source_weight": 1.0,
            "match_spread": False,
            "calibrate": False,
            "no_fallback": False,
        },
        "tables": {"wte": {"rows": {"copied": 3, "combined": 1000, "total": 1003}}},
    }
    (tmp_path / "transfer.json").write_text(json.dumps(manifest))
    card = run_card(config("pretrained"), CORPORA, tmp_path)
    (tmp_path / CARD).write_text(card, "utf-8")
    assert read_metadata(tmp_path) == known | {
        "language": ["de"],
        "datasets": ["oscar-corpus/OSCAR-2201"],
        "tags": ["clp-transfer", "clp_jax"],
    }
    assert "`org/helper` as the helper" in card
    assert "| computed by the method | 1,000 |" in card
    assert "arXiv:2301.09626" in card
    assert run_card(config("pretrained"), CORPORA, tmp_path) == card
    scratch = run_card(config("random"), CORPORA, tmp_path)
    assert "org/base" not in scratch
    assert "helper" not in scratch


def test_a_foreign_manifest_is_left_out(tmp_path):
    (tmp_path / "transfer.json").write_text('{"arguments": 3, "tables": {}}')
    assert "## Embeddings" not in run_card(config("pretrained"), CORPORA, tmp_path)


def test_a_corpus_with_odd_values_is_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus = tmp_path / "corpora" / "german"
    corpus.mkdir(parents=True)
    for odd in (5, {}, {"clean": 1e300}, {"clean": {"language": [{}]}, "sources": [1]}):
        (corpus / "manifest.json").write_text(json.dumps({"recipe": odd}))
        assert "datasets" not in run_card(config("pretrained"), CORPORA, tmp_path)


def test_it_says_what_lora_trained_and_which_step_was_best(tmp_path):
    values = config("pretrained").model_dump(mode="json")
    values["lora"] = {"r": 16}
    values["train"] |= {"patience": 2, "steps": 40}
    values["optimizer"]["lr_multipliers"] = {"embeddings": 0.5}
    lines = [
        {"step": step, "tokens": 4096 * step}
        | {f"validation/{unit}_perplexity": value for unit in ("token", "word", "byte")}
        for step, value in ((0, 16.0), (5, 4.0), (10, 8.0))
    ]
    card = run_card(RunConfig.from_dict(values), CORPORA, tmp_path, lines, 5)
    assert "| LoRA | rank 16, alpha 32, in all linear layers; in full: embeddings |" in card
    assert "of up to 40 steps the one with the lowest held-out loss: 5" in card
    assert "| training | 5 steps of 4 sequences of 1,024 tokens: 20,480 tokens |" in card
    assert "4.000 after 0 tokens, 2.000 after 20,480 tokens |" in card
