import io
import sys

import pytest

from clp_jax.cli import main
from clp_jax.errors import UserError
from clp_jax.evaluate.tables import markdown_table
from clp_jax.terminal import printable, printable_output

EVIL = "a\x1b[2J\x9b1m\rb\nc\x00\u2028"
TAMED = r"a\x1b[2J\x9b1m\rb\nc\x00\u2028"


def test_control_characters_are_escapes():
    assert printable(EVIL) == TAMED
    assert printable("Größe 猫 \u200d") == "Größe 猫 \u200d"


def test_control_sequences_do_not_reach_the_terminal(capsys, monkeypatch):
    def run(_):
        print(f"model {EVIL}")
        raise UserError(f"{EVIL} is missing.")

    monkeypatch.setattr("clp_jax.cli.runs._run", run)
    with pytest.raises(SystemExit) as end:
        main(["runs"])
    assert end.value.code == f"clp-jax: {TAMED} is missing."
    assert capsys.readouterr().out == f"model {TAMED}\n".replace(r"\n", "\n", 1)
    for flags in ([EVIL, f"--{EVIL}"], ["--json", f"gs://{EVIL}"]):
        with pytest.raises(SystemExit):
            main(["runs", *flags])
        assert "\x1b" not in capsys.readouterr().err


def test_a_closed_output_ends_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with printable_output():
        print("dropped")


def test_a_name_stays_in_its_cell():
    assert len(markdown_table(["run"], [[EVIL]]).splitlines()) == 3


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", r"K\xe4tz\u732b"), ("latin-1", r"Kätz\u732b")]
)
def test_what_an_encoding_lacks_ends_nothing(encoding, shown, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with printable_output():
        print("Kätz猫", "\udcff", flush=True)
    assert stream.buffer.getvalue().decode(encoding) == f"{shown} \\udcff\n"
