"""docs/how-to/no-helper.md, from text to a sentence, with tiny models."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import transformers
from tokenizers import Tokenizer

from clp_jax.checkpoint.new import new_model
from clp_jax.cli import main
from clp_jax.errors import UserError
from clp_jax.quickstart.inputs import made_up_text, write_text

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "how-to" / "no-helper.md"

SMALL = {
    "prepare": "--clean.language de --clean.min_words 5 --execution.workers 1",
    "tokenizer": "--vocab-size 400",
    "new": "--n-layer 1 --n-embd 32 --n-head 2 --n-positions 32",
    "train": "--data.sequence_length 32 --train.steps 2 --train.batch_size 8 --train.loss_chunk 32 "
    "--train.dtype float32 --train.validate_every 2 --train.checkpoint_every 2 "
    "--optimizer.warmup_steps 1",
    "transfer": "--method ridge",
    "generate": "--max-new-tokens 5",
}


def commands(page: Path) -> list[list[str]]:
    """The `clp-jax` commands of a page, without the program's name."""
    text = re.sub(r"\\\n\s*", "", page.read_text("utf-8"))
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("clp-jax ")]


@pytest.mark.slow
@pytest.mark.parametrize("tiny_model", ["gpt2"], indirect=True)
def test_the_page_leads_from_text_to_a_sentence(tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPOSITORY / "configs", "configs")
    shutil.copytree(tiny_model, "gpt2-xl")
    documents, _ = made_up_text("de", 60_000, 1_000)
    write_text(documents, Path("text/mine.jsonl"))
    run = commands(PAGE)
    assert {words[0] for words in run} == set(SMALL)
    for words in run:
        main([*words, *SMALL[words[0]].split()])
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("Det var en gång")
    manifest = json.loads(Path("models/start/transfer.json").read_text())
    assert manifest["arguments"]["helper"] == "runs/helper"


def test_a_new_model_has_the_ids_of_its_tokenizer(tiny_tokenizer, tmp_path):
    new_model(tiny_tokenizer, tmp_path / "new", n_layer=2, n_embd=32, n_head=4, n_positions=16)
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    file = tiny_tokenizer / "tokenizer.json"
    rows = Tokenizer.from_file(str(file)).get_vocab_size()
    assert (config["vocab_size"], config["bos_token_id"], config["eos_token_id"]) == (rows, 0, 0)
    assert (tmp_path / "new" / "tokenizer.json").read_bytes() == file.read_bytes()


def test_transformers_makes_a_model_of_it(tiny_tokenizer, tmp_path):
    new_model(tiny_tokenizer, tmp_path / "new", n_layer=2, n_embd=32, n_head=4, n_positions=16)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "new")
    model = transformers.AutoModelForCausalLM.from_config(config)
    assert model.config.n_layer == 2
    assert model.get_input_embeddings().weight.shape == (config.vocab_size, 32)


def test_sizes_that_make_no_model_are_refused(tiny_tokenizer, tmp_path):
    with pytest.raises(UserError, match="These sizes do not make a model"):
        new_model(tiny_tokenizer, tmp_path / "new", n_embd=32, n_head=5)
    assert not (tmp_path / "new").exists()
