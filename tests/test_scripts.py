"""The shell scripts, with a pretended gcloud, pretended hosts and a pretended pip."""

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
TOKEN = "hf_secret_of_the_user"

# Notes every call, then does on this machine, in $FAKE_HOST as home, what gcloud does on a host.
GCLOUD = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$FAKE_CALLS"
verb="$4"
for word in "$@"; do
  case "$word" in --command=*) remote="${word#--command=}" ;; esac
done
cd "$FAKE_HOST"
case "$verb" in
  ssh) HOME="$FAKE_HOST" HF_TOKEN= bash -c "$remote" ;;
  scp) target="${6#*:}"; cat "$5" >"${target:-$(basename "$5")}" ;;
esac
"""

# On the host: `python3 -m uv venv` makes an environment with the pretended clp-jax.
REMOTE_PYTHON = """#!/usr/bin/env bash
if [[ "$*" == *"uv venv"* ]]; then
  mkdir -p .venv
  cp -r "$FAKE_VENV" .venv/bin
fi
"""

# Tells its arguments and runs until there is a file `go`.
REMOTE_CLP_JAX = """#!/bin/sh
[ "$1" = doctor ] && exit 0
printf "<%s>\\n" "$@"
while [ ! -e go ]; do sleep 0.1; done
exit 3
"""


def executable(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


class Cloud:
    """A folder that plays the host, and what gcloud was asked."""

    def __init__(self, folder: Path):
        self.host = folder / "host"
        self.host.mkdir()
        self.calls = folder / "calls"
        executable(folder / "bin" / "gcloud", GCLOUD)
        executable(folder / "bin" / "python3", REMOTE_PYTHON)
        executable(folder / "venv" / "python", "#!/bin/sh\nexit 0\n")
        executable(folder / "venv" / "clp-jax", REMOTE_CLP_JAX)
        self.environment = {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": os.environ["HOME"],
            "FAKE_HOST": str(self.host),
            "FAKE_CALLS": str(self.calls),
            "FAKE_VENV": str(folder / "venv"),
        }

    def __call__(self, *words: str, typed: str = "", **environment: str) -> tuple[int, str]:
        done = subprocess.run(
            [REPOSITORY / "scripts" / "tpu_vm.sh", *words],
            env=self.environment | environment,
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout

    def asked(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def cloud(tmp_path) -> Cloud:
    return Cloud(tmp_path)


def test_create_passes_every_option(cloud):
    status, _ = cloud(
        *("create", "german", "--zone", "us-west4-a", "--project", "grant"),
        *("--type", "v5litepod-32", "--version", "v2-alpha-tpuv5-lite", "--spot"),
    )
    assert status == 0
    assert cloud.asked() == [
        "compute tpus tpu-vm create german --accelerator-type=v5litepod-32 "
        "--version=v2-alpha-tpuv5-lite --spot --zone=us-west4-a --project=grant"
    ]


def test_options_come_from_the_environment_too(cloud):
    place = {"TPU_NAME": "german", "TPU_ZONE": "z", "TPU_TYPE": "v4-8", "TPU_VERSION": "v"}
    assert cloud("create", **place)[0] == 0
    assert cloud.asked() == [
        "compute tpus tpu-vm create german --accelerator-type=v4-8 --version=v --zone=z"
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["create"],
        ["install"],
        ["doctor"],
        ["run", "--", "train", "--config", "configs/tiny.yaml"],
        ["launch", "--copy", "gs://b/run", "--", "train", "--config", "configs/tiny.yaml"],
        ["follow"],
        ["status"],
        ["delete"],
    ],
)
def test_dry_run_prints_what_would_be_called_and_calls_nothing(cloud, words):
    command, *rest = words
    status, output = cloud(command, "german", "--dry-run", *rest, HF_TOKEN=TOKEN)
    assert status == 0
    assert "gcloud compute tpus tpu-vm" in output
    assert TOKEN not in output
    assert cloud.asked() == []


def test_dry_run_needs_no_gcloud_and_a_real_run_says_that_it_is_missing(cloud, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "dirname", "cat"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    assert cloud("create", "german", "--dry-run", PATH=str(tools))[0] == 0
    status, output = cloud("create", "german", PATH=str(tools))
    assert (status, output) == (1, "gcloud is missing: install the Google Cloud CLI first.\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["create"], "Name the TPU VM: scripts/tpu_vm.sh create NAME, or set TPU_NAME."),
        (["start", "german"], "start is not a command; see scripts/tpu_vm.sh --help."),
        (["create", "german", "--zoen", "x"], "--zoen is not an option; see"),
        (["create", "german", "--zone"], "--zone needs a value."),
        (["launch", "german", "--", "train"], "The VM is deleted at the end: say what to --copy"),
        (["launch", "german", "--to", "-x", "--", "train"], "-x is no value for --to"),
        (["run", "german"], "Say what to run: scripts/tpu_vm.sh run NAME -- train --config FILE"),
    ],
)
def test_mistakes_are_reported_before_anything_is_called(cloud, words, sentence):
    status, output = cloud(*words)
    assert status == 1
    assert output.startswith(sentence)
    assert cloud.asked() == []


@pytest.mark.parametrize("key", ["NAME", "ZONE", "PROJECT", "TYPE", "VERSION"])
@pytest.mark.parametrize("value", ["--command=touch gone", "a\n--flags-file=b", "$(touch gone)"])
def test_values_that_are_options_or_commands_are_refused(cloud, key, value):
    status, output = cloud("create", **{"TPU_NAME": "german", f"TPU_{key}": value})
    assert status == 1
    assert f"is no value for --{key.lower()}: letters, digits" in output
    assert cloud.asked() == []


def test_install_copies_the_last_commit_and_hides_the_token(cloud):
    status, output = cloud("install", "german", HF_TOKEN=TOKEN)
    assert status == 0, output
    assert (cloud.host / "clp_jax" / "pyproject.toml").exists()
    token = cloud.host / ".cache" / "huggingface" / "token"
    assert token.read_text() == TOKEN
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert TOKEN not in output
    assert all(TOKEN not in call for call in cloud.asked())


def test_run_outlives_the_connection_and_reports_its_end(cloud):
    assert cloud("install", "german")[0] == 0
    words = ["train", "--config", "a file.yaml", "--train.out", "it's $HOME"]
    assert cloud("run", "german", "--", *words)[0] == 0
    assert "running" in cloud("status", "german")[1]
    status, output = cloud("run", "german", "--", "train")
    assert status == 1
    assert "A run is going on already" in output

    (cloud.host / "clp_jax" / "go").touch()
    deadline = time.monotonic() + 30
    while "ended with exit code 3" not in cloud("status", "german")[1]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert (cloud.host / "clp_jax" / "run.log").read_text().splitlines() == [
        f"<{word}>" for word in words
    ]


def test_follow_shows_the_log_of_one_host(cloud):
    assert cloud("follow", "german", "--worker", "2", "--dry-run")[1].count("--worker=2") == 1


def test_a_request_that_fails_is_not_repeated(cloud):
    with (cloud.host.parent / "bin" / "gcloud").open("a") as file:
        file.write("[[ $verb != describe ]] || echo FAILED\n")
    status, output = cloud("launch", "german", "--copy", "run", "--", "train")
    assert status == 1
    assert "The request for german has failed" in output
    assert sum("create" in call for call in cloud.asked()) == 1


def test_delete_asks_first(cloud):
    status, output = cloud("delete", "german", typed="y\n")
    assert status == 1
    assert output.endswith("Nothing was deleted.\n")
    assert cloud.asked() == []
    assert cloud("delete", "german", typed="german\n")[0] == 0
    assert cloud("delete", "german", "--yes")[0] == 0
    assert cloud.asked() == ["compute tpus tpu-vm delete german --quiet"] * 2


# A Python that makes an environment of pretended tools.
LOCAL_PYTHON = """#!/usr/bin/env bash
if [[ "$1 $2" == "-m venv" ]]; then
  echo venv >>"$NOTES"
  cp -r "$FAKE_VENV" "$3/bin"
else
  exec "$REAL_PYTHON" "$@"
fi
"""
TOOLS = {
    "python": "pip",
    "clp-jax": "clp-jax",
    "ruff": "ruff",
    "lint-imports": "lint-imports",
    "mypy": "mypy",
    "pytest": "pytest",
}


class Checkout:
    """A copy of what scripts/quickstart and scripts/test read, and what they called."""

    def __init__(self, folder: Path):
        self.root = folder / "a checkout"
        self.notes = folder / "notes"
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        shutil.copytree(REPOSITORY / "scripts", self.root / "scripts")
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(REPOSITORY / name, self.root / name)
        tools = folder / "bin"
        for name in ("python3.13", "python3.12"):
            executable(tools / name, "#!/bin/sh\nexit 127\n")
        executable(tools / "python3.11", LOCAL_PYTHON)
        for name, note in TOOLS.items():
            text = f'#!/bin/sh\necho "{note} $*" >>"$NOTES"\nexit ${{FAKE_STATUS:-0}}\n'
            executable(folder / "venv" / name, text)
        self.environment = {
            "PATH": f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin",
            "REAL_PYTHON": sys.executable,
            "NOTES": str(self.notes),
            "FAKE_VENV": str(folder / "venv"),
        }

    def __call__(self, script: str, *words: str, **environment: str) -> tuple[int, list[str], str]:
        self.notes.write_text("")
        done = subprocess.run(
            [self.root / "scripts" / script, *words],
            cwd=self.elsewhere,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return done.returncode, self.notes.read_text().splitlines(), done.stdout


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    return Checkout(tmp_path)


def kinds(notes: Sequence[str]) -> list[str]:
    return [note.split()[0] for note in notes]


def checks(notes: Sequence[str]) -> str:
    """How pytest was called by `test`; it runs next to mypy, so either may note itself first."""
    assert kinds(notes)[:3] == ["ruff", "ruff", "lint-imports"]
    types, tests = sorted(notes[3:])
    assert types.strip() == "mypy"
    return tests


def test_quickstart_makes_its_environment_once(checkout):
    status, notes, output = checkout("quickstart", "--out", "my folder")
    assert status == 0, output
    assert kinds(notes) == ["venv", "pip", "clp-jax"]
    assert notes[-1] == "clp-jax quickstart --out my folder"
    assert notes[1].endswith(f"--editable {checkout.root}")
    assert f"--constraint {checkout.root}/constraints.txt" in notes[1]
    assert kinds(checkout("quickstart")[1]) == ["clp-jax"]


def test_test_runs_every_check_and_adds_to_the_environment_of_quickstart(checkout):
    checkout("quickstart")
    status, notes, _ = checkout("test")
    assert status == 0
    assert kinds(notes)[0] == "pip"
    assert notes[0].endswith("[torch,eval,dev]")
    assert checks(notes[1:]).startswith("pytest -m not slow ")
    assert kinds(checkout("quickstart")[1]) == ["clp-jax"]


def test_all_leaves_no_test_out(checkout):
    _, notes, _ = checkout("test", "--all")
    assert checks(notes[-5:]).startswith("pytest -m  --numprocesses")


def test_arguments_of_test_go_to_pytest_alone(checkout):
    assert checkout("test", "-k", "two words")[1][-1] == "pytest -k two words"
    assert kinds(checkout("test", "-x")[1]) == ["pytest"]


def test_the_first_failing_check_ends_the_run(checkout):
    checkout("test")
    assert checkout("test", FAKE_STATUS="1")[:2] == (1, ["ruff check ."])


def test_an_unfinished_environment_is_made_again(checkout):
    status, notes, _ = checkout("quickstart", FAKE_STATUS="7")
    assert (status, kinds(notes)) == (7, ["venv", "pip"])
    assert kinds(checkout("quickstart")[1]) == ["venv", "pip", "clp-jax"]


def test_a_changed_project_makes_the_environment_again(checkout):
    checkout("quickstart")
    with (checkout.root / "constraints.txt").open("a") as file:
        file.write("six==1.17.0\n")
    assert kinds(checkout("quickstart")[1]) == ["venv", "pip", "clp-jax"]


def test_a_foreign_environment_is_left_alone(checkout):
    theirs = checkout.root / ".venv" / "precious"
    theirs.mkdir(parents=True)
    status, notes, output = checkout("test")
    assert (status, notes) == (1, [])
    assert "was not made by this script" in output
    assert theirs.exists()


def test_no_suitable_python_is_one_sentence(checkout):
    old = Path(checkout.environment["PATH"].split(os.pathsep)[0])
    for name in ("python3.11", "python3", "python"):
        executable(old / name, "#!/bin/sh\nexit 1\n")
    status, _, output = checkout("quickstart")
    assert status == 1
    assert output == (
        "No Python 3.11 or newer with venv and pip was found: install one and run this again.\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["kernels", "attention", "profile"])
def test_what_runs_on_gpus_runs_small_on_any_device(tmp_path, piece):
    environment = os.environ | {"PYTHON": sys.executable, "OUT": str(tmp_path / "out")}
    script = REPOSITORY / "scripts" / "gpu" / "run"
    done = subprocess.run(
        [script, "--small", piece], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "| " in done.stdout


def test_what_runs_on_gpus_has_pieces(tmp_path):
    environment = os.environ | {"OUT": str(tmp_path)}
    script = REPOSITORY / "scripts" / "gpu" / "run"
    done = subprocess.run([script, "nothing"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("nothing is no piece")
