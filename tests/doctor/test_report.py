"""What `clp-jax doctor` finds wrong, with pretended hardware, networks and mounts."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import jax
import pytest

from clp_jax import check_machine
from clp_jax.cli import main
from clp_jax.doctor import access, devices, machine
from clp_jax.doctor.checks import within


@pytest.fixture(autouse=True)
def started():
    """JAX has started, so that its devices are looked at in this process."""
    jax.devices()


def test_a_healthy_machine_has_no_problem(tmp_path, capsys):
    main(["doctor", "--out", str(tmp_path / "new" / "run"), "--json", str(tmp_path / "r.json")])
    printed = capsys.readouterr().out
    assert "| 8 x cpu (cpu)" in printed
    assert printed.endswith("No problem found.\n")
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["backend"], report["problems"]) == ("cpu", [])
    found = {check["name"]: check for check in report["checks"]}
    assert found["devices"]["count"] == found["devices"]["local"] == 8
    assert 0 < found["host memory"]["free_bytes"] < found["host memory"]["total_bytes"]
    assert found["hub"]["found"] == "not used (HF_HUB_OFFLINE)"
    assert not (tmp_path / "new").exists()


def test_a_problem_is_printed_and_decides_the_exit_status(monkeypatch, capsys):
    monkeypatch.setattr(machine, "LEAST_FREE", 2**80)
    with pytest.raises(SystemExit, match="clp-jax: 4 of the checks found a problem: see above"):
        main(["doctor"])
    assert "GiB left: make room there." in capsys.readouterr().out


@pytest.mark.slow
def test_an_own_process_finds_the_devices_too(monkeypatch):
    monkeypatch.setattr(devices, "_started", lambda: False)
    (found, _) = devices.check_devices()
    assert found.facts["backend"] == "cpu"
    assert found.problem is None


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            'print(\'{"error": "ABORTED: The TPU is already in use by process 7."}\')',
            r"JAX does not start \(ABORTED: The TPU .* process 7\): another process uses the TPU",
        ),
        ("import time; time.sleep(60)", r"no answer within 1 seconds\): check all hosts"),
        ("import os; os.abort()", r"exit status -6\): install clp-jax\[tpu\] again"),
        ("raise OSError('no driver')", r"exit status 1: OSError: no driver\): install"),
    ],
)
def test_devices_that_do_not_start_are_explained(monkeypatch, code, sentence):
    monkeypatch.setattr(devices, "_started", lambda: False)
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    monkeypatch.setattr(devices, "PATIENCE", 1.0 if "sleep" in code else 60.0)
    monkeypatch.setattr(devices, "PROBE", code)
    (found,) = devices.check_devices()
    assert re.search(sentence, found.problem)


def test_an_attached_accelerator_is_asked_for_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "_started", lambda: False)
    monkeypatch.delenv("JAX_PLATFORMS")
    (tmp_path / "accel0").touch()
    found = {"tpu": (f"{tmp_path}/accel*"[1:],), "cuda": (f"{tmp_path}/nvidia*"[1:],)}
    monkeypatch.setattr(devices, "ATTACHED", found)
    monkeypatch.setattr(devices, "PROBE", "import os; exit(os.environ['JAX_PLATFORMS'])")
    (check,) = devices.check_devices()
    assert "(exit status 1: tpu): install clp-jax[tpu] again" in check.problem


def test_a_file_system_that_does_not_answer_is_a_problem(monkeypatch, tmp_path):
    table = tmp_path / "mounts"
    table.write_text(
        f"drive {tmp_path}/my\\040drive fuse rw 0 0\nproc /proc proc rw 0 0\n"
        "gcsfuse /mnt fuse.gcsfuse rw 0 0\n"
    )
    (tmp_path / "my drive").mkdir()
    drive, bucket = machine.check_mounts(table)
    assert drive.name == "mount of drive (fuse)"
    assert drive.found.startswith(f"{tmp_path}/my drive, ")
    assert drive.problem is None
    monkeypatch.setattr(machine, "PATIENCE", 0.1)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: time.sleep(5))
    drive, bucket = machine.check_mounts(table)
    assert bucket.problem.startswith("/mnt does not answer (no answer within 0.1 seconds)")


def test_what_a_slow_check_raises_reaches_the_caller():
    assert within(5.0, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(5.0, lambda: 1 / 0)


class Hub(BaseHTTPRequestHandler):
    """A hub that knows one token."""

    def do_GET(self):
        token = self.headers.get("Authorization")
        known = token in (None, "Bearer hf_good")
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(b'{"name": "ada"}' if token and known else b"{}")

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    """The address of the hub, which is on this machine."""
    from huggingface_hub import constants

    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield constants.ENDPOINT
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("token", "found", "problem"),
    [
        (None, "without a token", None),
        ("hf_good", "as ada", None),
        ("hf_bad", "the token is refused", "set HF_TOKEN to a valid one"),
    ],
)
def test_the_hub_knows_the_token_or_not(hub, monkeypatch, token, found, problem):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
    check = access.check_hub()
    assert found in check.found
    assert (problem in check.problem) if problem else check.problem is None
    assert "hf_" not in str(check)


def test_a_hub_that_is_not_there_is_a_problem(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "or set HF_HUB_OFFLINE=1" in access.check_hub().problem


def test_a_bucket_is_written_and_read(monkeypatch, tmp_path):
    monkeypatch.setattr(access, "epath", SimpleNamespace(Path=lambda _: tmp_path))
    assert access.check_output("gs://bucket/run").found == "gs://bucket/run, written and read"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(access, "epath", SimpleNamespace(Path=lambda _: tmp_path / "no"))
    assert "gs://bucket/run cannot be reached" in access.check_output("gs://bucket/run").problem


def test_the_report_names_what_is_missing(monkeypatch):
    monkeypatch.setattr(machine, "PACKAGES", ("clp-jax", "no-such-package"))
    (problem,) = check_machine().problems
    assert problem.startswith("no-such-package is not installed: install clp-jax again")
