"""The command line as a user meets it: in a process of its own where that matters."""

import json
import subprocess
import sys

import pytest

import clp_jax
from clp_jax.cli import main
from clp_jax.data.corpus.store import Corpus
from clp_jax.errors import UserError
from clp_jax.transfer.config import TransferConfig

STAGES = (
    "doctor",
    "quickstart",
    "vocab",
    "tokenizer",
    "transfer",
    "prepare",
    "plan",
    "train",
    "runs",
    "chain",
    "finetune",
    "evaluate",
    "graft",
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
    assert "Peak learning rate, reached after the warm-up" in printed


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
        patch.setattr("clp_jax.data.corpus.store.write_json", fail)
        with pytest.raises(SystemExit, match=r"clp-jax: .*full: free some space and run the same"):
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


@pytest.mark.parametrize(
    ("stage", "flag", "value", "sentence"),
    [
        ("generate", "--mesh", "8", "8 is not three numbers: write them as 1,8,1"),
        ("generate", "--mesh", "1,8,x", "should be a valid integer"),
        ("generate", "--mesh", "1,-2,1", "greater than or equal to -1"),
        ("generate", "--temperature", "nan", "should be a finite number"),
        ("generate", "--temperature", "-1", "greater than or equal to 0"),
        ("generate", "--max-new-tokens", "-1", "greater than 0"),
        ("generate", "--seed", "2147483648", "less than or equal to 2147483647"),
        ("generate", "--seed", "9" * 5000, "exceeded maximum size"),
        ("evaluate perplexity", "--batch-size", "0", "greater than 0"),
        ("evaluate perplexity", "--batch-size", "1000000000", "less than or equal to 1048576"),
        ("evaluate perplexity", "--sequence-length", "-1", "greater than 0"),
        ("evaluate perplexity", "--json", "gs://b/x.json", "gs://b/x.json is an address"),
        ("evaluate tasks", "--limit", "0", "greater than 0"),
        ("tokenizer train", "--vocab-size", "5", "greater than or equal to 257"),
        ("convert", "--dtype", "int8", "should be 'bfloat16', 'float16', "),
    ],
)
def test_flags_have_the_limits_of_their_type(stage, flag, value, sentence, capsys):
    with pytest.raises(SystemExit) as end:
        main([*stage.split(), f"{flag}={value}"])
    assert end.value.code == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"clp-jax {stage}: error: argument {flag}: ")
    assert sentence in told


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
    monkeypatch.setattr("clp_jax.transfer.report.summarize", lambda *_: "done")
    return calls


def transfer(*flags, helpers=("h",)):
    main(["transfer", "--source", "s", "--helper", *helpers, "--out", "o", *flags])


def test_transfer_passes_on_what_is_given_and_nothing_else(transferred):
    transfer(helpers=("h", "g"))
    ((arguments, options),) = transferred
    assert arguments == ("s", ["h", "g"], "o")
    assert options.keys() == {"mesh"}


def test_every_key_of_a_transfer_is_a_flag(transferred, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt", "t.npy", "s.vec", "t.vec", "d.txt"):
        (tmp_path / name).touch()
    transfer("--extend")
    assert transferred.pop()[1].keys() == {"mesh", "extend"}
    transfer("--data", "a.txt", "--rank-steps", "2", "--neighbours", "5", "--temperature", "0.5",
             "--strength", "0", "--count-exponent", "1", "--atoms", "8", "--token-vectors", "t.npy",
             "--source-vectors", "s.vec", "--target-vectors", "t.vec",
             "--dictionary", "d.txt")  # fmt: skip
    of_auto = transferred.pop()[1].keys()
    transfer("--method", "ridge", "--match-spread", "--spread-shrinkage", "1", "--by-reliability")
    of_ridge = transferred.pop()[1].keys()
    transfer("--method", "clp", "--data", "a.txt", "b.txt", "--text-field", "body",
             "--source-weight", "0.5", "--no-match-spread", "--calibrate", "--tokenizer", "t",
             "--no-fallback", "--fuzzy", "--pad-to-multiple-of", "64", "--trace", "--seed", "3",
             "--dtype", "bfloat16")  # fmt: skip
    ((_, options),) = transferred
    assert {*options, *of_auto, *of_ridge, "extend"} == {*TransferConfig.model_fields, "mesh"}
    del options["mesh"]
    assert options["data"] == ["a.txt", "b.txt"]
    assert (options["match_spread"], options["trace"]) == (False, True)
    # Numbers are strings until the configuration reads them.
    read = TransferConfig.from_dict(options)
    assert (read.source_weight, read.pad_to_multiple_of, read.seed) == (0.5, 64, 3)


def test_help_of_transfer_explains_every_key(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # No key breaks at a hyphen.
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
    with pytest.raises(SystemExit, match=r"^clp-jax: transfer: .*source_weight would be ignored"):
        main(["transfer", "--source", str(tiny_model), "--helper", str(tiny_model),
              "--out", str(tmp_path / "out"), "--source-weight", "1"])  # fmt: skip
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
    assert "per word" in capsys.readouterr().out
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


REFUSED = {
    "quickstart --out gs://b/o": "is an address",
    "quickstart --corpus-source no.txt --corpus-target no.txt": "matches no file",
    "vocab --source /no/model --target /no/model": "is not a folder",
    "vocab --source x --target y --data no.txt": "matches no file",
    "tokenizer train --input no.txt --out o": "matches no file",
    "new --tokenizer /no/model --out o": "is not a folder",
    "new --tokenizer m --out full": "exists already",
    "transfer --source /no/model --helper h --out o": "is not a folder",
    "transfer --source s --helper h --out gs://b/o": "is an address",
    "transfer --source s --helper h --out full": "exists already",
    "transfer --source s --helper h --out o --method magic": "method: ",
    "transfer --source s --helper h --out o --method wechsel": "give source_vectors",
    "transfer --source s --helper h --out o --token-vectors no.npy": "no.npy is missing",
    "transfer --source s --helper h --out o --data no.txt": "matches no file",
    "prepare --input no.txt --out o": "matches no file",
    "prepare --config no.yaml --out o": "is missing",
    "prepare --config recipe.yaml --out o": "no.tar.gz matches no file",
    "prepare --input no.txt --out o --clean.min_words x": "--clean.min_words: ",
    "plan --config no.yaml --accelerator-type v4-8": "is missing",
    "plan --config run.yaml --accelerator-type v9-8": "is not a known accelerator type",
    "plan --config run.yaml --accelerator-type v4-8": "/no/model is not a folder",
    "plan --config run.yaml --accelerator-type v4-8 --source /no/source": "/no/source is not a",
    "plan --config run.yaml --accelerator-type v4-8 --vocab-size 999": "give its --source too",
    "train --config no.yaml": "is missing",
    "train --config run.yaml --train.steps x": "--train.steps: ",
    "train --config run.yaml": "/no/model is not a folder",
    "train --config run.yaml --model.path m": "/no/corpus is not a corpus",
    "runs no": "is not a folder",
    "chain --config no.yaml": "is missing",
    "chain --config chain.yaml": "/no/corpus is not a corpus",
    "evaluate perplexity --model m --data no.txt": "matches no file",
    "evaluate tasks --model /no/model --tasks arc_de": "is not a folder",
    "evaluate tasks --model m --tasks arc_de --log-samples": "give --output-path",
    "convert /no/model o --to hf": "is not a folder",
    "convert m full --to hf": "exists already",
    "graft --model m --base /no/model --instruct m --out o": "is not a folder",
    "generate --model /no/model --prompt x": "is not a folder",
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """For each of `REFUSED` what was told, and the heavy packages that were imported for it."""
    folder = tmp_path_factory.mktemp("refused")
    (folder / "full").mkdir()
    (folder / "full" / "file").touch()
    (folder / "recipe.yaml").write_text("sources: [{input: no.tar.gz, kind: gc4}]")
    (folder / "run.yaml").write_text(
        "model: {path: /no/model}\ndata: {train: /no/corpus}\ntrain: {out: r, steps: 1}"
    )
    (folder / "chain.yaml").write_text(
        "helper: h\nout: c\ndata: {train: /no/corpus}\n"
        "models: [{name: a, source: s, train: {steps: 1}}]"
    )
    code = (
        "import json, sys\n"
        "from clp_jax.cli import main\n"
        "told = {}\n"
        f"for command in {[*REFUSED]!r}:\n"
        "    try: main(command.split())\n"
        "    except SystemExit as end: told[command] = str(end.code)\n"
        "    heavy = {'jax', 'flax', 'transformers', 'datasets', 'torch', 'datatrove', 'grain'}\n"
        "    told[command] = [told[command], sorted(heavy & sys.modules.keys())]\n"
        "print(json.dumps(told))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, timeout=120
    )
    assert sorted(file.name for file in folder.iterdir()) == [
        "chain.yaml", "full", "recipe.yaml", "run.yaml",
    ]  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("command", REFUSED)
def test_mistakes_found_before_any_work_do_not_wait_for_jax(command, refused):
    sentence, imported = refused[command]
    assert REFUSED[command] in sentence
    assert sentence.startswith("clp-jax: ")
    assert imported == []


@pytest.mark.parametrize(
    ("stage", "flag"),
    [
        (["vocab", "--source", "a", "--target", "b"], "--data"),
        (["evaluate", "perplexity", "--model", "a"], "--data"),
        (["tokenizer", "train", "--out", "a"], "--input"),
        (["prepare", "--out", "a"], "--input"),
        (["prepare", "--out", "a", "--input", "b"], "--text-field"),
        (["quickstart"], "--corpus-source"),
    ],
)
def test_empty_names_are_refused_by_the_flag(stage, flag, capsys):
    with pytest.raises(SystemExit) as end:
        main([*stage, flag, ""])
    assert end.value.code == 2
    assert f"argument {flag}: must name something" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--copy-share", "0.5"], "--copy-share 0.5, which is now called source_weight"),
        (["--copy-share=0.5"], "--copy-share=0.5, which is now called source_weight"),
        (["rates"], "unrecognized arguments: rates"),
    ],
)
def test_an_old_flag_is_refused_with_the_new_one(given, told, capsys):
    with pytest.raises(SystemExit):
        main(["transfer", "--source", "a", "--helper", "b", "--out", "c", "--fuzzy", *given])
    assert capsys.readouterr().err.endswith(f"{told}\n")
