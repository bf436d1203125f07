"""The quickstart on the smallest scale: every stage runs and everything is where it says."""

import json
import re
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.cli import main
from clp_jax.config import RunConfig
from clp_jax.errors import RunStopped, UserError
from clp_jax.files import read_json, write_json
from clp_jax.quickstart import run
from clp_jax.quickstart.inputs import (
    END_OF_TEXT,
    made_up_text,
    own_text,
    write_new_model,
    write_text,
)
from clp_jax.quickstart.run import ModelSize, Sizes, run_quickstart
from clp_jax.quickstart.sentences import documents

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# Everything happens, nothing is learnt.
TINY = Sizes(
    source=ModelSize(layers=1, width=16, heads=2, steps=24),
    helper=ModelSize(layers=1, width=8, heads=1, steps=24),
    target_steps=16,
    measurements=4,
    batch_size=8,
    sequence_length=64,
    learning_rate=1e-2,
    vocabulary=512,
    characters=60_000,
    heldout_characters=3_000,
)


def press_ctrl_c(*_, **__):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A quickstart that was interrupted halfway; what had been made was not made again."""
    out = tmp_path_factory.mktemp("quickstart") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "transfer_model", press_ctrl_c)
        with pytest.raises(RunStopped, match="out keeps the finished work"):
            run_quickstart(out, sizes=TINY)
    with pytest.MonkeyPatch.context() as patch:
        for made in ("write_new_model", "prepare_corpus"):
            patch.setattr(run, made, pytest.fail)
        return out, run_quickstart(out, sizes=TINY)


@pytest.mark.slow
def test_everything_is_written(finished):
    out, result = finished
    saved = read_json(out / "quickstart.json")
    assert saved == json.loads(json.dumps(result))
    assert (out / "perplexity.png").read_bytes().startswith(b"\x89PNG")
    table = (out / "table.md").read_text("utf-8")
    tokens = TINY.target_steps * TINY.batch_size * TINY.sequence_length
    assert f"{tokens:,}" in table
    assert f"{result['curves']['scratch'][-1][1]:,.1f}" in table
    for place in ("models/target", "runs", "models/start"):
        assert (out / place).is_dir()


@pytest.mark.slow
def test_the_tiny_recipe_trains_on_what_it_leaves(finished):
    out, _ = finished
    recipe = RunConfig.from_yaml(CONFIGS / "tiny.yaml")
    for path in (recipe.model.path, recipe.data.train[0].path, *recipe.data.validation.values()):
        assert (out / Path(path).relative_to("quickstart")).is_dir()


@pytest.mark.slow
def test_both_runs_are_measured_at_the_same_tokens_and_learn(finished):
    _, result = finished
    transferred, scratch = (dict(result["curves"][name]) for name in ("transfer", "scratch"))
    assert list(transferred) == list(scratch)
    assert len(transferred) == TINY.measurements + 1
    assert min(scratch.values()) == list(scratch.values())[-1] < scratch[0]
    # The transferred model is calibrated, and starts where the scratch run may not even end.
    assert all(transferred[tokens] < scratch[tokens] for tokens in scratch)
    for name, curve in (("transfer", transferred), ("scratch", scratch)):
        measured = result["perplexity"][name]["token_perplexity"]
        assert measured == pytest.approx(list(curve.values())[-1], rel=1e-5)


@pytest.mark.slow
def test_pytorch_loads_the_model_and_gives_the_same_perplexity(finished):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out, result = finished
    model = AutoModelForCausalLM.from_pretrained(out / "models" / "target").eval()
    tokenizer = AutoTokenizer.from_pretrained(out / "models" / "target")
    end = tokenizer.eos_token_id
    lines = (out / "text" / "heldout.jsonl").read_text("utf-8").splitlines()
    tokens = [end]
    for line in lines:
        tokens += [*tokenizer(json.loads(line)["text"])["input_ids"], end]
    nll, length = 0.0, TINY.sequence_length
    for first in range(0, len(tokens) - 1, length):
        window = torch.tensor([tokens[first : first + length + 1]])
        with torch.no_grad():
            logits = model(window[:, :-1]).logits
        nll += float(
            torch.nn.functional.cross_entropy(logits[0].double(), window[0, 1:], reduction="sum")
        )
    assert result["perplexity"]["transfer"]["tokens"] == len(tokens) - 1
    assert result["perplexity"]["transfer"]["nll"] == pytest.approx(nll, rel=1e-5)


@pytest.mark.parametrize("corpora", [("en.txt", None), (None, "de.txt")])
def test_one_language_alone_is_refused(tmp_path, corpora):
    with pytest.raises(UserError, match="both"):
        run_quickstart(tmp_path / "out", *corpora)
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_refused_and_kept(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        run_quickstart(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_folder_with_other_settings_is_refused_and_kept(tmp_path):
    begun = {"corpora": [], "sizes": asdict(TINY)}
    for content, sentence in (
        (begun, "started with other corpora or sizes"),
        (begun | {"curves": {}}, "holds a finished quickstart"),
    ):
        write_json(tmp_path / "quickstart.json", content)
        with pytest.raises(UserError, match=sentence):
            run_quickstart(tmp_path)
        assert read_json(tmp_path / "quickstart.json") == content


def test_the_command_line_says_how_to_continue(monkeypatch, capsys):
    monkeypatch.setattr(run, "_run", press_ctrl_c)
    main(["quickstart", "--out", "mine"])
    assert capsys.readouterr().out.endswith(
        "clp-jax: mine keeps the finished work. Resume with: clp-jax quickstart --out mine\n"
    )


def test_its_programs_are_compiled_once(monkeypatch):
    called = []
    monkeypatch.setattr("clp_jax.mesh.use_compilation_cache", lambda: called.append("cache"))
    monkeypatch.setattr(run, "run_quickstart", lambda *_: called.append("run"))
    main(["quickstart"])
    assert called == ["cache", "run"]


def test_the_default_training_fits_two_minutes_of_two_cores():
    """2.2 TFLOP took 130 of 192 CPU seconds (docs/lab.md)."""
    sizes, flops = Sizes(), 0.0
    tokens = sizes.batch_size * sizes.sequence_length
    for model, steps in (
        (sizes.source, sizes.source.steps + 2 * sizes.target_steps),
        (sizes.helper, sizes.helper.steps),
    ):
        weights = 12 * model.layers * model.width**2 + sizes.vocabulary * model.width
        flops += 6 * weights * tokens * steps
    assert flops < 2.5e12


def test_no_default_training_sees_a_text_twice(tmp_path):
    sizes = Sizes()
    for language, model in (("en", sizes.source), ("de", sizes.helper)):
        text, _ = made_up_text(language, sizes.characters // 10, 1)
        write_text(text, tmp_path / f"{language}.jsonl")
        write_new_model(
            tmp_path / language, tmp_path / f"{language}.jsonl", vocabulary=sizes.vocabulary,
            positions=64, layers=1, width=8, heads=1,
        )  # fmt: skip
        tokenizer = load_tokenizer(tmp_path / language)
        tokens = sum(map(len, tokenizer.encode_batch(text))) * 10
        assert sizes.batch_size * sizes.sequence_length * model.steps < 1.1 * tokens


@pytest.mark.parametrize(
    ("share", "verdict"),
    [
        (None, "does not reach"),
        (0.0, "before any training"),
        (0.2, "last perplexity with 20% of the tokens"),
    ],
)
def test_the_report_says_what_the_curves_show(tmp_path, share, verdict):
    values = {f"{unit}_perplexity": 2.0 for unit in ("token", "word", "byte")}
    result = {
        "curves": {"transfer": [(0, 30.0), (512, 20.0)], "scratch": [(0, 512.0), (512, 90.0)]},
        "perplexity": {"transfer": values, "scratch": values},
        "share_of_tokens": share,
        "sizes": asdict(TINY),
        "sample": "Ein Satz.",
    }
    report = run._report(result, tmp_path)
    assert verdict in report
    assert re.search(r"512 \| +20.0 \| +90.0", report)


def test_a_glob_without_files_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"none-\*\.txt matches no file"):
        run_quickstart(tmp_path / "out", f"{tmp_path}/none-*.txt", f"{tmp_path}/none-*.txt")
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_nothing(tmp_path):
    file = tmp_path / "one.txt"
    file.write_text("A single document.")
    with pytest.raises(UserError, match="source corpus holds 1 documents"):
        run_quickstart(tmp_path / "out", str(file), str(file))
    assert [path.name for path in tmp_path.iterdir()] == ["one.txt"]


def test_held_out_text_is_not_trained_on():
    training, heldout = made_up_text("de", 200_000, 20_000)
    assert sum(map(len, heldout)) > 20_000
    assert not set(training) & set(heldout)
    found = [f"Document {number}." for number in range(1000)]
    training, heldout = own_text(iter(found), "Text", 5_000, 1_000)
    assert not set(training) & set(heldout)
    assert 5_000 <= sum(map(len, training)) < 5_100
    assert len(own_text(iter(found), "Text", 10**9, 10**9)[1]) == 100
    assert own_text(iter(found), "Text", 5_000, 1_000) == (training, heldout)
    numbers = np.array([int(text.split()[1][:-1]) for text in training])
    assert numbers.min() < 100
    assert numbers.max() > 900


def test_the_tokenizer_round_trips_every_text(tmp_path):
    write_text(list(islice(documents("de", 0), 200)), tmp_path / "de.jsonl")
    write_new_model(
        tmp_path / "new", tmp_path / "de.jsonl",
        vocabulary=600, positions=64, layers=1, width=8, heads=1,
    )  # fmt: skip
    tokenizer = load_tokenizer(tmp_path / "new")
    assert tokenizer.rows == read_json(tmp_path / "new" / "config.json")["vocab_size"] == 600
    assert tokenizer.token(tokenizer.eos) == END_OF_TEXT
    for text in ("Größe über alles: „Käse“\n\tund 日本語 🙂", " a  b "):
        assert tokenizer.decode(tokenizer.encode(text)) == text
