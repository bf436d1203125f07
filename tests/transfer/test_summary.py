import re

import pytest

from clp_jax.transfer.methods import METHODS, Recipe
from clp_jax.transfer.reading import Reading
from clp_jax.transfer.report import RANKED, summarize
from clp_jax.transfer.selection import BY_OVERLAP, BY_TEXT
from clp_jax.transfer.stage import transfer_model

TABLE = "transformer.wte.weight"
READING = Reading(2.0, 0.3, 2.0, 1234.5e6, unknown=0.123).to_dict()
OTHERS = [name for name in METHODS if name != "clp"]


@pytest.fixture(scope="module")
def manifest(planted, tmp_path_factory):
    """Of a transfer that was chosen by the shared tokens."""
    return transfer_model(*planted, tmp_path_factory.mktemp("summary") / "out")


def ranked(manifest, methods, fallbacks=("fallback: mean",)):
    """The manifest with another ranking, and two tables with these fallbacks."""
    table = manifest["tables"][TABLE]
    table = table | {
        "rows": table["rows"] | dict.fromkeys(fallbacks, 12_345),
        "norm_quantiles": table["norm_quantiles"] | {name: {"0.5": 1234.5} for name in fallbacks},
    }
    recipes = [Recipe(name, 0.25, match_spread=True, calibrate=True).to_dict() for name in methods]
    return manifest | {
        "arguments": {"source": "gpt2-xl", "helper": "de-small"},
        "recipe": recipes[0],
        "ranked_by": BY_TEXT,
        "readings": dict.fromkeys(("source", "new"), READING | {"unknown": 0.0}),
        "ranking": [recipe | {"helper": "x", "score": 2.0 + i} for i, recipe in enumerate(recipes)],
        "tables": {TABLE: table, "lm_head.weight": table},
    }


def test_the_vocabulary_the_choice_and_the_rows_are_there(manifest, planted):
    text = summarize(manifest, "out")
    assert text.startswith(f"{planted[0]} + {planted[1]} -> out\n")
    vocabulary, rows = manifest["vocabulary"], manifest["tables"][TABLE]["rows"]
    assert f"{vocabulary['shared']} of {vocabulary['target_tokens']} target tokens" in text
    assert re.search(r"method +ridge \(", text)
    assert f"{TABLE}: {rows['total']} rows" in text
    for origin in ("copied", "role", "combined", "padding"):
        assert re.search(rf"^ +{rows[origin]}  norm ", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("methods", "fallbacks"),
    [
        (["clp", *OTHERS], ["fallback: top-k softmax", "fallback: mean"]),
        ([*OTHERS, "clp"], ["fallback: mean"]),
    ],
)
def test_the_longest_fits_a_screen(manifest, methods, fallbacks):
    lines = summarize(ranked(manifest, methods, fallbacks), "out/gpt2-xl-de").splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("place", [0, RANKED - 1, RANKED, len(OTHERS)])
def test_the_papers_method_is_always_named_with_its_place(manifest, place):
    methods = [*OTHERS[:place], "clp", *OTHERS[place:]]
    text = summarize(ranked(manifest, methods) | {"recipe": Recipe("omp", 1.0).to_dict()}, "out")
    lines = [line for line in text.splitlines() if re.search(r"clp( |,|$)", line)]
    assert len(lines) == 1
    assert f"{2.0 + place:.4f}" in lines[0]
    assert ("rank" in lines[0]) == (place >= RANKED)
    assert place < RANKED or lines[0].endswith(f"rank {place + 1}")


@pytest.mark.parametrize(("cut", "words"), [([], ""), (["a.jsonl"], " at the beginning")])
def test_the_text_that_ranked_is_counted(manifest, cut, words):
    found = ranked(manifest, ["ridge"]) | {"text": {"documents": 1234, "of": 56789, "cut": cut}}
    expected = f"by bits per byte of text (1,234 of 56,789 documents{words}), lower is better"
    assert expected in summarize(found, "out")


def test_helpers_are_named_if_there_are_several(manifest):
    one = ranked(manifest, ["ridge", "omp"])
    assert "  x" not in summarize(one, "out")
    one["ranking"][1]["helper"] = "other"
    assert re.search(r"omp .* other$", summarize(one, "out"), re.MULTILINE)


def test_a_chosen_method_has_no_ranking(manifest):
    assert "ranking" not in summarize(manifest | {"ranking": []}, "out")


def test_a_method_is_shown_with_its_best_options_alone(manifest):
    text = summarize(ranked(manifest, ["ridge", "omp", "ridge"]), "out")
    assert "2.0000  ridge" in text
    assert "4.0000" not in text


def test_the_source_with_its_own_tokenizer_is_beside_the_new_one(manifest):
    found = ranked(manifest, ["ridge"])
    new = READING | {"bits_per_byte": None, "unknown": 0}
    lines = summarize(found | {"readings": {"source": READING, "new": new}}, "out").splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("tokenizer"))
    costs = "0.300 tokens   1,234.5 MFLOP per byte, 2.00 tokens per word"
    assert lines[place : place + 4] == [
        f"tokenizer   source's own  2.0000 bits  {costs}",
        "            The source's tokenizer cannot encode 12.3% of the bytes, so the source's "
        "figures are too",
        "            good.",
        f"            new          {costs}",
    ]


def test_a_helper_no_better_than_the_mean_row_is_reported(manifest):
    found = ranked(manifest, ["ridge", "omp"])
    warning = "No method beats the mean row: check that the helper is a trained model."
    assert warning not in summarize(found, "out")
    for score in found["ranking"]:
        score["behind"] = 12.34
    text = summarize(found | {"ranked_by": BY_OVERLAP}, "out")
    assert warning in text
    assert "The second is 12.3 standard errors behind. Without text this is a guess" in text
