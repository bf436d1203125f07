"""The page, read back with parsers of HTML and Markdown that know nothing of it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from clp_jax import compare_models
from clp_jax.cli import main
from clp_jax.compare.subjects import short_labels
from clp_jax.errors import UserError

from .conftest import MODEL, write_run

HARNESS = {
    "results": {"hellaswag_de": {"alias": "h", "acc,none": 0.3, "acc_stderr,none": 0.01}},
    "n-shot": {"hellaswag_de": 5},
    "n-samples": {"hellaswag_de": {"original": 90, "effective": 80}},
}
TEXT = {
    "bits_per_byte": 1.25,
    "byte_perplexity": 2.378,
    "token_perplexity": 30.5,
    "tokens": 300,
    "words": 200,
}


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Two models without weights."""
    monkeypatch.chdir(tmp_path)
    for name in ("base", "other"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text(json.dumps(MODEL))
    return ["models/base", "models/other"]


class Html(HTMLParser):
    """What a page would fetch, and its text."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "link", "iframe", "object")
        self.addresses += [v for name, v in attributes if name in ("src", "href", "srcset")]

    def handle_data(self, data):
        self.text += data


def rows(markdown, heading):
    """The rows of the first table under a heading."""
    section = markdown.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    header, _, *body = [[c.strip() for c in line.split("|")[1:-1]] for line in lines]
    return [dict(zip(header, row, strict=False)) for row in body if len(row) == len(header)]


def test_the_page_of_two_arms(two_arms, tmp_path):
    page = compare_models(two_arms, "out")
    html, markdown = Html(page.read_text("utf-8")), page.with_suffix(".md").read_text("utf-8")
    assert html.addresses
    assert all(address.startswith("data:image/svg+xml;base64,") for address in html.addresses)
    pictures = re.findall(r"\]\((.+)\)", markdown)
    assert len(pictures) == 4
    for name in pictures:
        svg = page.with_name(name)
        assert svg.read_text("utf-8").startswith("<?xml")
        assert svg.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    for text in (html.text, markdown):
        assert "On german, german ends at 1.030 bits per byte (mean of 2 seeds), the low" in text
        assert "german has forgotten some english: it ends with 63.0% more bits per byte" in text
        assert "On german, replay does not reach the best of german" in text
    assert rows(markdown, "Bits per byte: english")[0] == {
        "run": "german-0",
        "at the start": "1.0000",
        "best": "1.0000",
        "after tokens": "0",
        "at the end": "1.6000",
        "change": "+60.0%",
    }
    [cost, *_] = rows(markdown, "Cost of training")
    assert (cost["tokens"], cost["hours"], cost["chips"]) == ("3,000", "1.50", "4")
    assert (cost["chip-hours"], cost["device"]) == ("6.00", "TPU v5e")
    assert rows(markdown, "Tokens per word")[0]["german"] == "1.750"
    assert "samples" not in markdown.lower()
    assert str(tmp_path) not in html.text + markdown


def test_the_same_run_gives_the_same_page(tmp_path):
    run = write_run(tmp_path / "run", {"": [2.0, 1.0]})
    pages = [compare_models([run], tmp_path / out).read_bytes() for out in ("one", "two")]
    assert pages[0] == pages[1]


def test_results_of_models_from_the_command_line(models, tmp_path, capsys):
    base, _ = models
    run = write_run(Path("runs/german"), {"english": [1.0, 1.5]})
    files = {"harness.json": HARNESS, "german.json": TEXT}
    for name, values in files.items():
        (tmp_path / name).write_text(json.dumps(values))
    results = ["base=harness.json", f"{base}=german.json"]
    main(["compare", base, str(run), "--results", *results, "--out", "out"])
    assert capsys.readouterr().out == "out/comparison.html\n"
    markdown = (tmp_path / "out" / "comparison.md").read_text("utf-8")
    model, run = rows(markdown, "What is compared")
    assert (model["name"], model["what it is"], model["seed"]) == ("base", "model", "–")
    assert run["what it is"] == "run from the weights of models/transferred"
    [task] = rows(markdown, "Tasks")
    assert (task["score"], task["95% interval"], task["shots"]) == ("0.300", "0.280 to 0.320", "5")
    assert task["in words"] == "chance is not known"
    [text] = rows(markdown, "Other texts")
    assert (text["text"], text["model"], text["bits per byte"]) == ("german", "base", "1.2500")
    assert rows(markdown, "Tokens per word")[0] == {
        "model": "base", "german": "1.500", "english": "–"}  # fmt: skip
    assert not [file for file in (tmp_path / "out").iterdir() if "german" in file.name]


def answered(right, *, of=100, verdict="better than guessing"):
    """The result of a task with that many right answers, the first ones."""
    score = {"score": right / of, "low": right / of - 0.05, "high": right / of + 0.05}
    guessing = {"random": 0.5, "majority": None, "higher_is_better": True, "verdict": verdict}
    values = " ".join("1" if number < right else "0" for number in range(of))
    acc = score | guessing | {"aggregate": "mean", "values": values}
    passages = " ".join(map(str, range(of)))
    task = {"examples": of, "num_fewshot": 0, "documents": "d", "passages": passages}
    return task | {"metrics": {"acc": acc, "empty": acc | {"score": None, "aggregate": None}}}


def test_tasks_are_tested_against_the_first_model(models, tmp_path):
    chance = "no better than guessing"
    for name, (one, two) in {"base": (60, 50), "other": (80, 51)}.items():
        tasks = {"one": answered(one), "two": answered(two, verdict=chance)}
        (tmp_path / f"{name}.json").write_text(json.dumps(tasks))
    results = {name: [tmp_path / f"{name}.json"] for name in ("base", "other")}
    markdown = compare_models(models, "out", results=results).with_suffix(".md").read_text("utf-8")
    assert "other is better than guessing on 1 of 2 tasks (one)." in markdown
    assert "other is significantly better on 1 (one) of 2 tasks, compared with base" in markdown
    section = markdown.split("\n## Tasks\n")[1]
    found = [line.split(" | ") for line in section.splitlines() if "| other |" in line]
    assert [row[-1].strip(" |") for row in found] == [
        "better than guessing", chance, "better", "not comparable", "no difference",
        "not comparable",
    ]  # fmt: skip
    assert "| one | acc | other | +0.200 | " in markdown


def test_samples_stand_side_by_side(models, monkeypatch):
    def continued(model, prompts, **_):
        return [f"{prompt} <b>{model}</b>\n\x1b" for prompt in prompts]

    monkeypatch.setattr("clp_jax.compare.generate_texts", continued)
    page = compare_models(models, "out", prompts=["Es war", "Es war", ""])
    html = page.read_text("utf-8")
    assert html.count("<figcaption>base</figcaption>Es war &lt;b&gt;models/base&lt;") == 1
    assert "Without a prompt:" in html
    assert "\x1b" not in html


def test_mistakes_are_one_sentence_and_leave_nothing_behind(two_arms, tmp_path):
    other = tmp_path / "other.json"
    no_number = {"bits_per_byte": "x", "byte_perplexity": 2, "token_perplexity": 3}
    for values in (
        {"a": 1},
        {"results": {"t": 3}},
        {"bits_per_byte": 1},
        {"t": {"metrics": 1}},
        {**no_number, "tokens": 2, "words": 1},
    ):
        other.write_text(json.dumps(values))
        with pytest.raises(UserError, match=r"other.json holds no results: give what"):
            compare_models(two_arms, "out", results={"german-0": [other]})
    with pytest.raises(UserError, match=r"results of x, which is not compared: name german-0, "):
        compare_models(two_arms, "out", results={"x": [other]})
    with pytest.raises(UserError, match=r"runs/german-0 is given twice"):
        compare_models([two_arms[0], f"{two_arms[0]}/"], "out")
    with pytest.raises(SystemExit, match=r"nowhere/at/all is not a folder"):
        main(["compare", "nowhere/at/all", "--out", "out"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["x/a/model", "x/b/model", "org/base"], ["a/model", "b/model", "base"]),
        (["a", "x/a"], ["a", "x/a"]),
    ],
)
def test_labels_are_the_shortest_ends_that_differ(names, labels):
    assert short_labels(names) == labels
