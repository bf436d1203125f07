import pytest
import yaml

from clp_jax.checkpoint.card import CARD, inherited, read_metadata, render_card


def metadata_of(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_a_card_passes_on_its_metadata(tmp_path):
    known = {"language": "de", "license": "mit", "base_model": "org/base", "tags": ["clp-transfer"]}
    card = render_card("mine", known, "Text.\n")
    (tmp_path / CARD).write_text(card, "utf-8")
    assert card.endswith("\n# mine\n\nText.\n")
    assert metadata_of(card)["pipeline_tag"] == "text-generation"
    assert read_metadata(tmp_path) == known | {"tags": ["clp-transfer", "clp_jax"]}
    assert metadata_of(render_card("x", read_metadata(tmp_path), ""))["tags"] == [
        "clp-transfer",
        "clp_jax",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no head",
        "---\n[1, 2\n---\n",
        "---\n- 1\n---\n",
        "---\nlicense: mit\n",
        "---\n" * 3,
        "A text.\n\n---\nlicense: mit\n---\n",
        "---\nlicense: {name: mit}\ntags: [[a]]\n---\n",
    ],
)
def test_a_card_without_metadata_passes_on_nothing(tmp_path, text):
    (tmp_path / CARD).write_text(text, "utf-8")
    assert read_metadata(tmp_path) == {}


def test_a_language_is_text(tmp_path):
    (tmp_path / CARD).write_text("---\nlanguage: no\ntags: [1, on]\n---\n", "utf-8")
    assert read_metadata(tmp_path) == {"language": "no", "tags": ["1", "on"]}
    card = render_card("x", read_metadata(tmp_path), "")
    assert metadata_of(card) | {"library_name": ""} == {
        "library_name": "",
        "pipeline_tag": "text-generation",
        "language": "no",
        "tags": ["1", "on", "clp_jax"],
    }


def test_a_hub_id_is_the_base_model_and_a_folder_is_not(tmp_path):
    (tmp_path / CARD).write_text("---\nlicense: mit\nbase_model: org/older\n---\n", "utf-8")
    assert inherited("org/model", tmp_path) == {"license": "mit", "base_model": "org/model"}
    assert inherited(tmp_path, tmp_path) == {"license": "mit", "base_model": "org/older"}
