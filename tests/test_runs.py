import json
import math
import os
import shutil
import time

import pytest

from clp_jax.cli import main
from clp_jax.errors import UserError
from clp_jax.runs import list_runs
from clp_jax.train.metrics import METRICS, read_metrics
from clp_jax.train.run_folder import CONFIG, RECORD

CONFIGURATION = """
model:
  path: {model}
  init: random
data:
  train: corpora/train
  sequence_length: 16
train:
  out: {out}
  steps: 40
"""


def write_run(
    folder, *, steps=40, tokenizer="a1", validated=True, model="models/small", sets=("",)
):
    """A run folder as a run leaves it, with a line for every ten steps."""
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(CONFIGURATION.format(out=folder, model=model))
    record = {"parameters": 123_456, "hashes": {"tokenizer": tokenizer}}
    (folder / RECORD).write_text(json.dumps(record))
    lines = []
    for number, step in enumerate(range(10, steps + 1, 10)):
        line = {"step": step, "tokens": 100 * step, "seconds": 36.0 * step}
        lines.append(
            line
            | {"train/loss": 5 - step / 20, "train/skipped_steps": number, "time/goodput": 0.875}
            | {"speed/tokens_per_second": 1000.0 * (number + 1)}
            | {"speed/tokens_per_second_per_chip": 500.0 * (number + 1)}
        )
        if validated:
            units = {"token": 40.0, "word": 90.0, "byte": 4.0}
            for worse, name in enumerate(sets):
                prefix = f"validation/{name}/".replace("//", "/")
                line |= {f"{prefix}loss": (3.0 if step == 20 else 3.5) + worse}
                line |= {
                    f"{prefix}{unit}_perplexity": top - number + worse
                    for unit, top in units.items()
                }
            lines.append(line)
    (folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def cells(table):
    """The rows of a table as dicts by column."""
    header, _, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()
    ]
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_what_is_reported_about_a_run(tmp_path):
    folder = write_run(tmp_path / "run")
    [row] = cells(str(list_runs([tmp_path])))
    assert row == {
        "run": str(folder),
        "model": "models/small (new weights)",
        "parameters": "123,456",
        "step": "40 of 40",
        "tokens": "4,000",
        "loss": "3.000",
        "perplexity per token": "37",
        "per word": "87",
        "per byte": "1",
        "bits per byte": "0.000",
        "best at step": "20",
        "tokens/s": "2,500",
        "per chip": "1,250",
        "goodput": "87.5%",
        "hours": "0.40",
        "skipped": "3",
        "state": "finished",
    }


def test_heldout_sets_have_a_column_and_a_panel_each(tmp_path, monkeypatch):
    several = write_run(tmp_path / "several", sets=("German", "English"))
    plain = write_run(tmp_path / "plain")
    found = list_runs([tmp_path])
    rows = cells(str(found))
    names = ["bits per byte", "bits per byte, German", "bits per byte, English"]
    assert [[row[name] for name in names] for row in rows] == [
        ["0.000", "", ""],
        ["", "0.000", "1.000"],
    ]
    assert {(row["perplexity per token"], row["best at step"]) for row in rows} == {("37", "20")}
    assert found.to_dict()["runs"][1]["bits_per_byte"] == {"German": 0.0, "English": 1.0}
    plotted = []
    monkeypatch.setattr("clp_jax.runs.plot_bits_per_byte", lambda *given: plotted.append(given))
    found.plot(tmp_path / "plot.png")
    [(panels, _)] = plotted
    assert {title: (*curves,) for title, curves in panels.items()} == {
        "held-out text": (str(plain),),
        "German": (str(several),),
        "English": (str(several),),
    }
    assert panels["English"][str(several)][0] == (1000, pytest.approx(math.log2(5)))


def test_runs_are_found_at_any_depth_and_columns_of_no_run_are_left_out(tmp_path):
    write_run(tmp_path / "chain" / "small" / "run", validated=False)
    other = write_run(tmp_path / "other", steps=20, validated=False)
    written = time.time() - 90
    os.utime(other / METRICS, (written, written))
    (tmp_path / "corpora" / "train").mkdir(parents=True)
    rows = cells(str(list_runs([tmp_path, tmp_path / "other"])))
    assert [row["run"] for row in rows] == [
        str(tmp_path / "chain" / "small" / "run"),
        str(tmp_path / "other"),
    ]
    assert "perplexity per token" not in rows[0]
    assert [row["state"] for row in rows] == ["finished", "1 min ago"]


def test_nan_is_neither_best_nor_json(tmp_path):
    folder = write_run(tmp_path / "run")
    first, *rest = (folder / METRICS).read_text().splitlines(keepends=True)
    broken = {"step": 0, "tokens": 0, "seconds": 0.0, "validation/loss": None}
    last = json.loads(first) | {"step": 40, "tokens": 4000, "train/loss": None}
    lines = [json.dumps(broken) + "\n", first, *rest, json.dumps(last) + "\n"]
    (folder / METRICS).write_text("".join(lines))
    found = list_runs([folder])
    [row] = cells(str(found))
    assert (row["loss"], row["best at step"]) == ("nan", "20")
    [figures] = json.loads(json.dumps(found.to_dict(), allow_nan=False))["runs"]
    assert (figures["loss"], figures["best_step"]) == (None, 20)


def test_a_run_without_metrics(tmp_path):
    write_run(tmp_path / "run", steps=0)
    (tmp_path / "run" / METRICS).unlink()
    [row] = cells(str(list_runs([tmp_path / "run"])))
    assert (row["step"], row["tokens"], row["state"]) == ("0 of 40", "0", "not begun")


def test_a_damaged_run_is_reported_alongside_the_others(tmp_path):
    write_run(tmp_path / "good")
    (write_run(tmp_path / "bad") / CONFIG).write_text("model: [")
    (write_run(tmp_path / "worse") / METRICS).write_text("no JSON\n")
    (write_run(tmp_path / "old") / RECORD).write_text("{}")
    found = list_runs([tmp_path])
    assert [run.run for run in found.runs] == [str(tmp_path / "good")]
    assert set(found.unreadable) == {str(tmp_path / name) for name in ("bad", "worse", "old")}
    assert f"{tmp_path / 'bad'} cannot be read: " in str(found)
    assert "is not valid YAML" in str(found)


def test_no_run_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="There is no run in"):
        list_runs([tmp_path])
    with pytest.raises(UserError, match="is not a folder"):
        list_runs([tmp_path / "none"])


def test_table_plot_and_figures_from_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "one")
    write_run(tmp_path / "runs" / "two")
    main(["runs", "--plot", "runs.png", "--json", "runs.json"])
    assert [row["run"] for row in cells(capsys.readouterr().out)] == ["runs/one", "runs/two"]
    assert (tmp_path / "runs.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads((tmp_path / "runs.json").read_text())
    assert [run["best_step"] for run in figures["runs"]] == [20, 20]
    assert figures["unreadable"] == {}


def test_perplexities_are_plotted_per_byte_where_tokenizers_differ(tmp_path, monkeypatch):
    plotted = []
    monkeypatch.setattr("clp_jax.runs.plot_perplexity", lambda *given: plotted.append(given))
    one, two = (
        write_run(tmp_path / name, tokenizer=tokenizer)
        for name, tokenizer in (("one", "a1"), ("two", "b2"))
    )
    write_run(tmp_path / "three", tokenizer="c3", validated=False)
    list_runs([tmp_path]).plot(tmp_path / "plot.png")
    shutil.rmtree(two)
    list_runs([tmp_path]).plot(tmp_path / "plot.png")
    (per_byte, _, first), (per_token, _, second) = plotted
    assert per_byte == dict.fromkeys(
        (str(one), str(two)), ((1000, 4.0), (2000, 3.0), (3000, 2.0), (4000, 1.0))
    )
    assert (first, second) == ("Perplexity per byte", "Perplexity per token")
    assert per_token[str(one)][-1] == (4000, 37.0)
    shutil.rmtree(one)
    with pytest.raises(UserError, match="nothing to plot"):
        list_runs([tmp_path]).plot(tmp_path / "plot.png")


def test_a_bucket_that_cannot_be_reached(monkeypatch):
    def missing(*_):
        raise ImportError("gcsfs")

    monkeypatch.setattr("etils.epath.gpath.PosixGPath.is_dir", missing)
    with pytest.raises(UserError, match=r"^gs://bucket/runs needs gcsfs: install clp-jax\[gcs\]"):
        list_runs(["gs://bucket/runs"])


DAMAGES = [
    *[(RECORD, text) for text in ("", "[]", "null", "[" * 100_000, '{"parameters": 1}')],
    (RECORD, '{"parameters": "many", "hashes": {"tokenizer": "a"}}'),
    (RECORD, '{"parameters": 1, "hashes": [1]}'),
    (RECORD, '{"parameters": 1, "hashes": {"tokenizer": 7}}'),
    *[(METRICS, f"{text}\n") for text in ("[]", "null", "7", "{}", "[" * 100_000, "\xff")],
    (METRICS, '{"step": "1", "tokens": 1, "seconds": 1}\n'),
    (METRICS, '{"step": 1, "tokens": 1.5, "seconds": 1}\n'),
    (METRICS, '{"step": 1, "tokens": 1, "seconds": 1, "train/loss": []}\n'),
    (METRICS, '{"step": 1, "tokens": 1, "seconds": 1, "train/loss": ' + "1" * 5000 + "}\n"),
    (CONFIG, "[" * 20_000),
]


def test_one_damaged_run_hides_no_other(tmp_path):
    write_run(tmp_path / "good")
    for number, (file, text) in enumerate(DAMAGES):
        (write_run(tmp_path / f"bad{number}") / file).write_text(text, "latin-1")
    pipes = {file: write_run(tmp_path / f"pipe of {file}") / file for file in (RECORD, METRICS)}
    for file in pipes.values():
        file.unlink()
        os.mkfifo(file)
    found = list_runs([tmp_path])
    assert [run.run for run in found.runs] == [str(tmp_path / "good")]
    assert len(found.unreadable) == len(DAMAGES) + 2
    assert all(file in reason for file, reason in found.unreadable.items() if "pipe" in file)
    assert all(len(line) < 1000 for line in str(found).splitlines())


@pytest.mark.parametrize(
    "lost", [b"\0" * 300, b"\0" * 300 + b"\n", b'{"step": 50, "tok', b'{"step"\0\0\n']
)
def test_a_last_line_torn_by_a_power_failure_is_left_out(tmp_path, lost):
    whole = read_metrics(write_run(tmp_path / "run"))
    with (tmp_path / "run" / METRICS).open("ab") as file:
        file.write(lost)
    assert read_metrics(tmp_path / "run") == whole


def test_a_string_is_a_place(tmp_path):
    write_run(tmp_path / "run")
    assert len(list_runs(str(tmp_path)).runs) == len(list_runs(tmp_path).runs) == 1


def test_links_are_followed_and_end_nowhere(tmp_path):
    place = tmp_path / "runs"
    write_run(place / "here")
    write_run(tmp_path / "elsewhere")
    (place / "one").symlink_to(".")
    (place / "two").symlink_to("..")
    (place / "a copy").symlink_to("here")
    (place / "self").symlink_to("self")
    found = [run.run for run in list_runs(place).runs]
    assert found == [str(place / "here"), str(place / "two" / "elsewhere")]


def test_the_search_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("clp_jax.runs.MOST_FOLDERS", 20)
    for number in range(20):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(UserError, match="has more than 20 folders: name the one with the runs"):
        list_runs(tmp_path)
