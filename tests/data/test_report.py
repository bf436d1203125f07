"""The report, read back with parsers of HTML and Markdown that know nothing of it."""

import base64
import io
import re
import unicodedata
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest

from clp_jax.data.config import PrepareConfig
from clp_jax.data.report import summary, write_report
from clp_jax.data.report.plots import plot_lengths, plot_steps
from clp_jax.terminal import visible

TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "tr", "th",
        "td", "pre", "img", "div"}  # fmt: skip
HOSTILE = (
    "</pre></td><script>alert(1)</script><img src=x onerror=alert(1)> [a](javascript:b) <b@c.de>\n"
    "```\n````\n~~~\n# heading\n| a | b |\n|---|---|\n&lt;i&gt; **bold** https://evil.example\n"
    "\x1b[31mred\x1b]0;title\x07 \x00\r\x85\u2028\ud800\u202egnp.exe \u00a0 Größe"
)


def a_manifest():
    return {
        "tokens": 2000003,
        "documents": 10007,
        "words": 1000003,
        "bytes": 6000011,
        "characters": 6050023,
        "dtype": "uint16",
        "eos_id": 50256,
        "fingerprint": "f1" * 32,
        "tokenizer": "malteos/gpt2-wechsel-german-ds-meg",
        "tokenizer_hash": "a2" * 32,
        "heldout": {"documents": 103, "words": 10009, "bytes": 60013, "tokens": 20011},
        "sources": [
            {
                "kind": "oscar",
                "input": "de_*.jsonl.zst",
                "documents": 9001,
                "bytes": 7000003,
                "documents_kept": 8009,
                "bytes_kept": 5000011,
            },
            {
                "kind": "files",
                "input": "law.txt",
                "documents": 2003,
                "bytes": 1000033,
                "documents_kept": 2099,
                "bytes_kept": 1060013,
            },
        ],
        "recipe": PrepareConfig().model_dump(mode="json"),
        "steps": [
            {
                "stage": "clean",
                "name": "language",
                "documents": 11004,
                "dropped": {"below_score": 701, "other_language": 97},
                "changed": {},
                "seconds": 12.34,
                "characters": 8000036,
            },
            {
                "stage": "clean",
                "name": "personal_data",
                "documents": 10206,
                "dropped": {},
                "changed": {"emails": 317, "phones": 41},
                "seconds": 5.67,
                "characters": 7500013,
            },
            {
                "stage": "filter",
                "name": "near",
                "documents": 10206,
                "dropped": {"duplicate": 96},
                "changed": {},
                "seconds": 8.91,
                "characters": 7400017,
            },
        ],
        "broken": 19,
        "empty": 23,
        "lengths": {"edges": [1, 2, 4, 8, 1024], "documents": [29, 31, 9906, 41]},
        "fertility": {
            "new": {"tokens_per_word": 1.567, "bytes_per_token": 3.789},
            "old": {"name": "gpt2", "tokens_per_word": 2.678, "bytes_per_token": 2.234},
        },
        "versions": {"clp-jax": "0.1.0", "datatrove": "0.10.1"},
    }


def a_sample(text, reason="below_score", id_="00000/7"):
    return {"id": id_, "reason": reason, "text": text}


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.images = set(), "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        assert dict(attributes).keys() <= {"lang", "charset", "http-equiv", "content", "name",
                                           "class", "src", "alt"}  # fmt: skip
        if tag == "img":
            self.images.append(dict(attributes)["src"])

    def handle_endtag(self, tag):
        self.text += "\n" if tag in ("td", "th") else ""

    def handle_data(self, data):
        self.text += data


def write(folder, manifest, samples):
    write_report(folder, manifest, samples)
    return (folder / "report.md").read_text("utf-8"), Page(
        (folder / "report.html").read_text("utf-8")
    )


def leaves(value):
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    else:
        yield value


def written(value):
    """The ways in which a value may stand on a page."""
    match value:
        case bool() | None:
            return {str(value).lower(), "null"}
        case int():
            return {f"{value:,}", str(value)}
        case float():
            return {f"{value:.3f}", f"{value:.2f}", str(value)}
        case _:
            return {value}


def test_every_value_of_the_manifest_is_on_both_pages(tmp_path):
    manifest = a_manifest()
    markdown, page = write(tmp_path, manifest, {})
    manifest["lengths"]["edges"][-1] -= 1  # the last length of the last bin
    reasons = ["below_score", "other_language", "emails", "phones", "duplicate"]
    for text in (markdown.replace("\\", ""), page.text):
        for value in [*reasons, *leaves(manifest)]:
            found = "|".join(map(re.escape, written(value)))
            assert re.search(rf"(?<![\w,.])({found})(?![\w]|[,.]\d)", text), value


def test_shares_and_rates(tmp_path):
    markdown, _ = write(tmp_path, a_manifest(), {})
    row = next(line for line in markdown.splitlines() if line.startswith("| language | clean"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:] == ["11,004", "798", "7.25%", "8,000,036", "6.25%", "12.34", "0.65"]
    assert "| near | filter | 10,206 | 96 | 0.94% | 7,400,017 | 18.24% | 8.91 | 0.83 |" in markdown
    assert "| kept | – | 10,110 | – | – | 6,050,023 | – | – | – |" in markdown
    assert "| personal\\_data | emails | 317 |" in markdown


def hostile_report(folder):
    manifest = a_manifest()
    manifest["tokenizer"] = manifest["sources"][0]["kind"] = HOSTILE
    manifest["fertility"]["old"]["name"] = HOSTILE
    manifest["steps"][0]["dropped"] = {HOSTILE: 3}
    manifest["recipe"]["clean"]["language"] = HOSTILE
    manifest["recipe"]["sources"] = [{"input": HOSTILE}]
    return manifest, *write(folder, manifest, {HOSTILE: [a_sample(HOSTILE, HOSTILE, HOSTILE)]})


def test_html_escapes_hostile_text(tmp_path):
    _, _, page = hostile_report(tmp_path)
    assert page.tags == TAGS
    assert page.text.count("<script>alert(1)</script>") >= 8
    assert visible(HOSTILE, kept="\n") in page.text
    assert all(image.startswith("data:image/png;base64,") for image in page.images)
    html = (tmp_path / "report.html").read_text("utf-8")
    assert "default-src 'none'" in html


def test_markdown_escapes_hostile_text(tmp_path):
    markdown_it = pytest.importorskip("markdown_it")
    _, markdown, _ = hostile_report(tmp_path)
    parser = markdown_it.MarkdownIt("gfm-like", {"linkify": False})
    tokens = parser.parse(markdown)
    inline = [token for outer in tokens for token in outer.children or []]
    assert {token.type for token in inline} <= {"text", "text_special"}
    kinds = {re.sub("_(open|close)$", "", token.type) for token in tokens}
    assert kinds == {"heading", "paragraph", "inline", "fence",
                     "table", "thead", "tbody", "tr", "th", "td"}  # fmt: skip
    assert sum(token.type == "heading_open" for token in tokens) == 7
    sample, recipe = (token.content for token in tokens if token.type == "fence")
    assert sample == "[{0}]\n{0}\n".format(visible(HOSTILE, kept="\n"))
    assert recipe.startswith("sources:\n")
    # The text of a cell is what it would be if nothing had been escaped.
    (cell,) = {t.content.replace("\\", "") for t in tokens if "onerror" in t.content
               and t.content.startswith("new")}  # fmt: skip
    assert cell == f"new: {visible(HOSTILE)}"


def test_no_control_sequence_is_written(tmp_path):
    manifest, _, _ = hostile_report(tmp_path)
    for text in (
        (tmp_path / "report.md").read_bytes().decode("utf-8"),
        (tmp_path / "report.html").read_bytes().decode("utf-8"),
        summary(manifest),
    ):
        kinds = {unicodedata.category(character) for character in set(text) - {"\n"}}
        assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
        assert "\u202e" not in text


def test_letters_of_all_scripts_are_kept():
    text = "Größe שלום السلام 日本語 न\u200dम 👩\u200d👩\u200d👧 \u00ad"
    assert visible(text) == text


def test_three_samples_of_each_reason_are_shown(tmp_path):
    samples = [a_sample(f"text {n}", reason) for n in range(5) for reason in ("short", "long")]
    markdown, page = write(tmp_path, a_manifest(), {"length": samples, "none": []})
    for text in (markdown, page.text):
        assert [text.count(f"text {n}") for n in range(5)] == [2, 2, 2, 0, 0]
        assert text.index("length: short") < text.index("length: long")
    assert "none" not in markdown


def test_broken_records_have_no_id_and_a_reason_each(tmp_path):
    samples = [{"reason": f"a.jsonl, line {n}: not JSON", "text": "{"} for n in range(100)]
    markdown, _ = write(tmp_path, a_manifest(), {"broken": samples})
    assert "\nbroken: a.jsonl, line 0: not JSON\n\n```text\n{\n```\n" in markdown
    assert markdown.count("not JSON") == 8


def test_a_corpus_that_was_only_tokenised_has_a_report_too(tmp_path):
    manifest = a_manifest() | {"steps": [], "heldout": None}
    del manifest["fertility"]["old"]
    markdown, page = write(tmp_path, manifest, {})
    for text in (markdown, page.text):
        assert "Nothing is held out." in text
        assert "No steps were requested" in text
        assert "old:" not in text
        assert "Examples of what was dropped" not in text
    assert "steps       none" in summary(manifest)


def test_clean_text_without_a_tokenizer_has_a_report_too(tmp_path):
    tokens = ("tokens", "lengths", "fertility", "dtype", "eos_id", "fingerprint", "tokenizer_hash")
    manifest = {key: value for key, value in a_manifest().items() if key not in tokens}
    manifest |= {"tokenizer": None, "heldout": None}
    markdown, page = write(tmp_path, manifest, {})
    for text in (markdown.lower(), page.text.lower()):
        assert "10,007" in text
        assert "token" not in text
    assert "token" not in summary(manifest)


def test_unknown_values_are_a_dash(tmp_path):
    manifest = a_manifest()
    manifest["steps"][0]["dropped"] = {"": 2}
    manifest["steps"][2] |= {"documents": 0, "characters": 0, "seconds": 0.0, "dropped": {}}
    markdown, _ = write(tmp_path, manifest, {"near": [a_sample("x", None)]})
    assert "| near | filter | 0 | 0 | – | 0 | – | 0.00 | – |" in markdown
    assert "| language | – | 2 |" in markdown
    assert "\nnear\n" in markdown


def test_a_report_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    before = write(tmp_path, a_manifest(), {})[0]
    broken = a_manifest()
    del broken["recipe"]
    with pytest.raises(KeyError):
        write_report(tmp_path, broken, {})
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28)))
    with pytest.raises(OSError, match="28"):
        write_report(tmp_path, a_manifest() | {"tokens": 1}, {})
    assert (tmp_path / "report.md").read_text("utf-8") == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.md"]


def test_the_same_manifest_gives_the_same_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_report(tmp_path / name, a_manifest(), {"language": [a_sample("text")]})
    for file in ("report.md", "report.html"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def coloured(png):
    pixels = (matplotlib.image.imread(io.BytesIO(png))[..., :3] * 255).round().astype(int)
    return np.all(pixels == (0x00, 0x72, 0xB2), axis=-1)


def test_bars_are_as_large_as_the_counts():
    rows = coloured(plot_steps(["a", "b"], [4000, 2000, 1000])).sum(axis=1)
    widths = [np.median(rows[part][rows[part] > 0]) for part in np.array_split(range(len(rows)), 3)]
    columns = coloured(plot_lengths([1, 2, 4, 8], [100, 300, 200])).sum(axis=0)
    heights = [np.median(part) for part in np.array_split(columns[columns > 0], 3)]
    assert heights == pytest.approx([heights[1] / 3, heights[1], heights[1] * 2 / 3], rel=0.05)
    assert widths == pytest.approx([widths[0], widths[0] / 2, widths[0] / 4], rel=0.2)


def test_the_pictures_are_in_the_page(tmp_path):
    _, page = write(tmp_path, a_manifest(), {})
    pictures = [base64.b64decode(image.partition(",")[2]) for image in page.images]
    lengths = a_manifest()["lengths"]
    assert pictures[1] == plot_lengths(lengths["edges"], lengths["documents"])
    assert pictures[0] == plot_steps(
        ["language", "personal_data", "near"], [11004, 10206, 10206, 10110]
    )


def test_the_summary_fits_on_a_screen():
    manifest = a_manifest()
    manifest["tokenizer"] = "/very/long/" + "path/" * 50
    idle = manifest["steps"][0] | {"name": "idle", "dropped": {}}
    manifest["steps"] = manifest["steps"] * 10 + [idle]
    lines = summary(manifest).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    assert lines[-1] == "and 16 more"
    assert not any("idle" in line for line in lines)


def test_the_summary_prints_the_numbers():
    lines = summary(a_manifest()).splitlines()
    assert lines[0] == (
        "corpus      10,007 documents, 6,000,011 bytes, 1,000,003 words, 2,000,003 tokens"
    )
    assert lines[1] == "held out    103 documents, 60,013 bytes, 10,009 words, 20,011 tokens"
    assert lines[2] == "Skipped while reading: 19 broken records and 23 without text."
    assert "1.567 tokens per word, 3.789 bytes per token: malteos" in lines[3]
    assert lines[4] == "before      2.678 tokens per word, 2.234 bytes per token: gpt2"
    assert lines[6].split() == ["language", "11,004", "798", "7.25%", "0", "0.65"]
    assert lines[7].split() == ["personal_data", "10,206", "0", "0.00%", "358", "1.32"]
