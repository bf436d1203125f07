"""The command line as a user meets it: in a process of its own where that matters."""

import json
import subprocess
import sys

import pytest

import clp_jax
from clp_jax.cli import main
from clp_jax.config import TransferConfig
from clp_jax.data.store import Corpus
from clp_jax.errors import UserError

STAGES = (
    "quickstart",
    "vocab",
    "tokenizer",
    "transfer",
    "prepare",
    "plan",
    "train",
    "runs",
    "chain",
    "evaluate",
    "convert",
    "generate",
)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "clp_jax", *map(str, arguments)], capture_output=True, text=True
    )


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("Die Katze schläft auf dem Dach. " * 20)
    return file


@pytest.fixture
def corpus(text, tiny_model, tmp_path):
    main(["prepare", "--input", str(text), "--tokenizer", str(tiny_model),
          "--out", str(tmp_path / "corpus")])  # fmt: skip
    return tmp_path / "corpus"


def test_help_names_every_stage(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert all(f"  {stage} " in printed for stage in STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_help(stage, capsys):
    with pytest.raises(SystemExit) as end:
        main([stage, "--help"])
    assert end.value.code == 0
    assert "usage: clp-jax" in capsys.readouterr().out


def test_help_of_train_explains_every_key(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    printed = capsys.readouterr().out
    assert "--optimizer.learning_rate (default 0.0001)" in printed
    assert "The highest learning rate" in printed


def test_help_does_not_import_jax():
    code = (
        "import sys, clp_jax.cli\n"
        "try: clp_jax.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('jax', 'transformers', 'datasets', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_a_mistake_is_a_sentence_and_an_exit_code(tmp_path):
    ended = run("generate", "--model", tmp_path / "none", "--prompt", "x")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("clp-jax: ")
    assert "Traceback" not in ended.stderr


def test_a_full_disk_is_a_sentence_and_leaves_no_corpus(text, tiny_model, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device", "manifest.json")

    command = ["prepare", "--input", str(text), "--tokenizer", str(tiny_model),
               "--out", str(tmp_path / "corpus")]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr("clp_jax.data.store.write_json", fail)
        with pytest.raises(SystemExit, match=r"clp-jax: .*full: make room and run the same"):
            main(command)
    with pytest.raises(UserError, match="is not a corpus"):
        Corpus.open(tmp_path / "corpus")
    main(command)
    assert Corpus.open(tmp_path / "corpus").documents == 1


def test_an_unknown_flag_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        main(["vocab", "--source", "a", "--target", "b", "--furry"])
    assert end.value.code == 2
    assert "unrecognized arguments: --furry" in capsys.readouterr().err


def test_a_mesh_that_cannot_be_read(tiny_model):
    with pytest.raises(SystemExit, match="--mesh 8 is not understood: write three numbers"):
        main(["generate", "--model", str(tiny_model), "--prompt", "x", "--mesh", "8"])


def test_vocab_prints_and_writes_the_report(tiny_model, text, tmp_path, capsys):
    main(["vocab", "--source", str(tiny_model), "--target", str(tiny_model), "--fuzzy",
          "--data", str(text), "--json", str(tmp_path / "report.json")])  # fmt: skip
    printed = capsys.readouterr().out
    assert "in both" in printed
    assert "120 words" in printed
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["share_of_source"] == report["text"]["matched_tokens_share"] == 1.0


def test_tokenizer_train_writes_a_tokenizer_and_prints_a_line(text, tmp_path, capsys):
    # One long document is several pieces, of which one is kept out.
    text.write_text("Die Katze schläft auf dem Dach. " * 1000)
    out = tmp_path / "tokenizer"
    main(["tokenizer", "train", "--input", str(text), "--vocab-size", "270", "--out", str(out)])
    assert capsys.readouterr().out.startswith(f"{out}: 270 tokens from 2")
    assert len(json.loads((out / "vocab.json").read_text())) == 270


@pytest.fixture
def transferred(monkeypatch):
    """What the stage was called with, while it does nothing."""
    calls = []
    monkeypatch.setattr(
        "clp_jax.transfer.stage.transfer_model", lambda *a, **k: calls.append((a, k))
    )
    monkeypatch.setattr("clp_jax.transfer.summary.summarize", lambda *_: "done")
    return calls


def transfer(*flags):
    main(["transfer", "--source", "s", "--helper", "h", "g", "--out", "o", *flags])


def test_transfer_passes_on_what_is_given_and_nothing_else(transferred):
    transfer()
    ((arguments, options),) = transferred
    assert arguments == ("s", ["h", "g"], "o")
    assert options.keys() == {"mesh"}


def test_every_key_of_a_transfer_is_a_flag(transferred):
    transfer("--method", "clp", "--data", "a.txt", "b.txt", "--text-field", "body",
             "--copy-share", "0.5", "--no-match-norms", "--calibrate", "--strict", "--fuzzy",
             "--extend", "--pad-to-multiple-of", "64", "--token-vectors", "t.npy",
             "--source-vectors", "s.vec", "--target-vectors", "t.vec", "--dictionary", "d.txt",
             "--trace", "--seed", "3", "--dtype", "bfloat16")  # fmt: skip
    ((_, options),) = transferred
    del options["mesh"]
    assert options.keys() == TransferConfig.model_fields.keys()
    assert options["data"] == ["a.txt", "b.txt"]
    assert (options["match_norms"], options["trace"]) == (False, True)
    # Numbers are strings until the configuration reads them.
    read = TransferConfig.from_dict(options | {"extend": False})
    assert (read.copy_share, read.pad_to_multiple_of, read.seed) == (0.5, 64, 3)


def test_help_of_transfer_explains_every_key(capsys):
    with pytest.raises(SystemExit):
        main(["transfer", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for key, field in TransferConfig.model_fields.items():
        assert f"--{key.replace('_', '-')}" in printed
        assert " ".join(field.description.split()) in printed


def test_transfer_writes_a_model_and_prints_one_screen(tiny_model, tmp_path, capsys):
    out = tmp_path / "out"
    main(["transfer", "--source", str(tiny_model), "--helper", str(tiny_model), "--out", str(out),
          "--method", "clp"])  # fmt: skip
    printed = capsys.readouterr().out
    assert f"-> {out}" in printed
    assert "copied from the source" in printed
    assert len(printed.splitlines()) <= 24
    assert json.loads((out / "transfer.json").read_text())["recipe"]["method"] == "clp"


def test_a_mistake_in_a_transfer_is_a_sentence(tiny_model, tmp_path):
    with pytest.raises(SystemExit, match=r"^clp-jax: transfer: .*chosen by the method auto"):
        main(["transfer", "--source", str(tiny_model), "--helper", str(tiny_model),
              "--out", str(tmp_path / "out"), "--copy-share", "1"])  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_prepare_writes_a_corpus(corpus):
    assert Corpus.open(corpus).documents == 1


def test_train_takes_every_key_as_a_flag_then_evaluate_convert_generate(
    tiny_model, corpus, text, tmp_path, capsys
):
    config = tmp_path / "run.yaml"
    config.write_text(f"model: {{path: {tiny_model}}}\ndata: {{train: {corpus}}}\n")
    run_folder = str(tmp_path / "run")
    main(["train", "--config", str(config), "--train.out", run_folder, "--train.steps", "2",
          "--train.batch_size=8", "--data.sequence_length", "16"])  # fmt: skip
    main(["evaluate", "perplexity", "--model", run_folder, "--data", str(text),
          "--json", str(tmp_path / "perplexity.json")])  # fmt: skip
    assert "word_perplexity" in capsys.readouterr().out
    assert json.loads((tmp_path / "perplexity.json").read_text())["words"] == 120
    main(["convert", run_folder, str(tmp_path / "hf"), "--to", "hf", "--dtype", "bfloat16"])
    assert "2 steps of 8 sequences of 16 tokens" in (tmp_path / "hf" / "README.md").read_text()
    main(["generate", "--model", str(tmp_path / "hf"), "--prompt", "Die Katze",
          "--max-new-tokens", "3"])  # fmt: skip
    assert "Die Katze" in capsys.readouterr().out


def test_train_refuses_an_unknown_key(tmp_path):
    (tmp_path / "run.yaml").write_text("model: {path: x}\n")
    with pytest.raises(SystemExit, match=r"clp-jax: .*unknown key train.speed"):
        main(["train", "--config", str(tmp_path / "run.yaml"), "--train.speed", "11"])


def test_every_public_name_is_there():
    for name in clp_jax.__all__:
        assert getattr(clp_jax, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        clp_jax.nonsense  # noqa: B018
