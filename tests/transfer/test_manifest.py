import hashlib
import json
import shlex
import shutil
from importlib.metadata import version

import numpy as np
import pytest
from safetensors.numpy import load_file

from clp_jax.checkpoint.card import CARD, read_metadata, render_card
from clp_jax.cli import make_parser
from clp_jax.transfer.config import TransferConfig
from clp_jax.transfer.helper import open_helper
from clp_jax.transfer.methods import METHODS, Recipe
from clp_jax.transfer.models import open_source
from clp_jax.transfer.report import command_line, describe_recipe, model_card, text_hash
from clp_jax.transfer.stage import transfer_model

TABLE = "transformer.wte.weight"


@pytest.fixture(scope="module")
def made(pair, tmp_path_factory):
    """A transfer and its manifest."""
    out = tmp_path_factory.mktemp("made") / "out"
    return out, transfer_model(*pair, out, method="clp", source_weight=1, seed=4)


def test_it_is_the_file_and_nothing_but_json(made):
    out, manifest = made
    text = (out / "transfer.json").read_text("utf-8")

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(text, parse_constant=refuse) == manifest


def test_every_row_is_counted_once(made):
    out, manifest = made
    entry = manifest["tables"][TABLE]
    rows = dict(entry["rows"])
    assert (
        rows.pop("total") == sum(rows.values()) == len(load_file(out / "model.safetensors")[TABLE])
    )
    assert {name for name, values in entry["norm_quantiles"].items() if values} == {"source"} | {
        name for name, count in rows.items() if count
    }


def test_what_was_asked_and_chosen(made, pair):
    manifest = made[1]
    assert manifest["arguments"] == {
        "source": str(pair[0]), "helper": str(pair[1]),
        "method": "clp", "source_weight": 1.0, "seed": 4,
    }  # fmt: skip
    assert manifest["recipe"] == Recipe("clp", 1.0).to_dict()
    assert manifest["ranking"] == []
    assert manifest["vocabulary"]["target_tokens"] == 20


def test_hashes_and_norms_are_those_of_the_inputs(made, pair):
    manifest = made[1]
    for model, folder in zip(("source", "helper"), pair, strict=True):
        table = load_file(folder / "model.safetensors")[TABLE]
        expected = hashlib.sha256(table.tobytes()).hexdigest()
        assert manifest["sha256"][f"{model}_tables"] == {TABLE: expected}
    norms = np.linalg.norm(load_file(pair[0] / "model.safetensors")[TABLE], axis=1)
    found = manifest["tables"][TABLE]["norm_quantiles"]["source"]
    assert found["1.0"] == pytest.approx(norms.max())
    assert found["0.5"] == pytest.approx(np.median(norms))


def test_hashes_change_with_a_tokenizer(made, pair, tmp_path):
    shutil.copytree(pair[1], tmp_path / "helper")
    file = tmp_path / "helper" / "tokenizer.json"
    file.write_text(file.read_text().replace('"mond"', '"mund"'))
    other = transfer_model(pair[0], tmp_path / "helper", tmp_path / "out", method="mean")["sha256"]
    assert other["helper_tokenizer"] != made[1]["sha256"]["helper_tokenizer"]
    assert other["source_tokenizer"] == made[1]["sha256"]["source_tokenizer"]


def test_versions(made):
    assert made[1]["versions"]["jax"] == version("jax")
    assert made[1]["versions"]["clp-jax"] == version("clp-jax")


def test_the_card_names_the_rows_and_no_path_of_this_machine(made, pair, tmp_path_factory):
    out, manifest = made
    card = (out / "README.md").read_text("utf-8")
    assert card == model_card(manifest, open_source(pair[0]), open_helper(pair[1]))
    assert "# source with the vocabulary of helper" in card
    assert "| copied from the source: the same token | 11 |" in card
    assert "| all | 21 |" in card
    assert "has not been trained" in card
    assert str(tmp_path_factory.getbasetemp()) not in card


def test_the_card_of_an_extension(made, pair):
    manifest = made[1] | {"arguments": made[1]["arguments"] | {"extend": True}}
    card = model_card(manifest, open_source(pair[0]), open_helper(pair[1]))
    assert "# source with its own vocabulary and that of helper" in card


def test_the_card_has_the_licence_of_the_source_and_the_language_of_the_helper(
    made, pair, tmp_path
):
    folders = []
    for folder, known in zip(
        pair,
        ({"license": "mit", "language": "en"}, {"license": "gpl", "language": "de"}),
        strict=True,
    ):
        folders.append(shutil.copytree(folder, tmp_path / folder.name))
        (folders[-1] / CARD).write_text(render_card("", known, ""), "utf-8")
    source, helper = open_source(folders[0]), open_helper(folders[1])
    (tmp_path / CARD).write_text(model_card(made[1], source, helper), "utf-8")
    assert read_metadata(tmp_path) == {
        "license": "mit",
        "language": ["de"],
        "tags": ["clp_jax", "clp-transfer"],
    }


def test_a_recipe_in_words():
    plain = Recipe("clp", 1.0)
    assert describe_recipe(plain.to_dict()) == f"clp ({METHODS['clp'].text})"
    every = Recipe("ridge", 0.25, match_spread=True, calibrate=True).to_dict()
    assert describe_recipe(every).endswith(
        ", 25% of every shared row copied, spread matched, calibrated on text"
    )
    directed = Recipe("ridge", 1.0, match_spread=True, spread_shrinkage=1.0, by_reliability=True)
    assert describe_recipe(directed.to_dict()).endswith(
        ", less of a shared row copied, the worse others predict it, spread matched by direction"
    )


def test_the_command_is_one_that_the_command_line_reads_back():
    given = {
        "method": "clp", "data": ["a b.txt", "c.txt"], "source_weight": 0.5, "match_spread": False,
        "no_fallback": True, "seed": 3,
    }  # fmt: skip
    config = TransferConfig.from_dict(given)
    words = shlex.split(command_line("big model", ["small"], config))
    assert words[:2] == ["clp-jax", "transfer"]
    read = vars(make_parser().parse_args(words[1:]))
    assert (read["source"], read["helper"], read["out"]) == ("big model", ["small"], "OUT")
    options = {key: read[key] for key in TransferConfig.model_fields if key in read}
    assert TransferConfig.from_dict(options) == config


def test_the_hash_of_the_text_depends_on_document_boundaries():
    assert text_hash(["ab", "c"]) != text_hash(["a", "bc"])
    assert text_hash(["ab"]) == hashlib.sha256(b"ab\0").hexdigest()
