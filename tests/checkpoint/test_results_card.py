import json

import pytest
from huggingface_hub import ModelCard

from clp_jax.checkpoint.card import CARD, render_card
from clp_jax.checkpoint.hub import RESULTS
from clp_jax.checkpoint.results_card import add_results
from clp_jax.errors import UserError
from clp_jax.results import Results, TaskScore, TextScore

TASK = TaskScore("xnli_de", "acc", 0, 90, 0.35, 0.3, 0.4, 1 / 3, None, "no better than guessing")
TEXT = TextScore("german", 1.25, 2.3784, 30.5, 1.5)


def test_the_hub_reads_them_and_people_too(tmp_path):
    (tmp_path / CARD).write_text(
        render_card("mine", {"language": "no"}, "Text.\n\n## Limits\n\nMany.\n")
    )
    add_results(tmp_path, Results([TASK], [TEXT]))
    text = (tmp_path / CARD).read_text("utf-8")
    card = ModelCard(text)
    assert (card.data.model_name, card.data.library_name) == ("mine", "transformers")
    found = [(r.dataset_name, r.metric_name, r.metric_value) for r in card.data.eval_results]
    assert found == [
        ("german", "bits per byte", 1.25),
        ("german", "perplexity per byte", 2.3784),
        ("xnli_de", "acc", 0.35),
    ]
    assert "language: 'no'" in text
    assert "\n## Limits\n\nMany.\n\n## Results\n" in text
    assert "| 0.350 | 0.300 to 0.400 | 0.333 | – | no better than guessing |" in text


def test_measured_again_they_are_replaced_and_others_stay(tmp_path):
    (tmp_path / CARD).write_text(render_card("mine", {}, "Text.\n"))
    add_results(tmp_path, Results([TASK], [TEXT]))
    once = (tmp_path / CARD).read_text("utf-8")
    add_results(tmp_path, Results([TASK]))
    assert (tmp_path / CARD).read_text("utf-8") == once
    better = TaskScore("xnli_de", "acc", 0, 90, 0.5)
    add_results(tmp_path, Results([better]))
    text = (tmp_path / CARD).read_text("utf-8")
    assert text.count("## Results") == 1
    assert [r.metric_value for r in ModelCard(text).data.eval_results] == [1.25, 2.3784, 0.5]
    assert json.loads((tmp_path / RESULTS).read_text())["tasks"][0]["score"] == 0.5


def test_a_damaged_card_or_file_is_named(tmp_path):
    (tmp_path / CARD).write_text("---\na: [1\n---\n")
    with pytest.raises(UserError, match=r"README.md has no valid metadata"):
        add_results(tmp_path, Results([TASK]))
    (tmp_path / RESULTS).write_text('{"tasks": [{"x": 1}], "texts": []}')
    with pytest.raises(UserError, match=r"results.json was not written here"):
        add_results(tmp_path, Results([TASK]))
