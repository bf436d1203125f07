"""What is installed: the wheel, the tested versions, and what an import costs."""

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
HEAVY = {
    "datasets",
    "flax",
    "gensim",
    "grain",
    "jax",
    "lm_eval",
    "matplotlib",
    "orbax",
    "torch",
    "transformers",
}


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=120, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    "statement",
    ["import clp_jax", "from clp_jax.cli import main; main(['--help'])"],
    ids=["import", "help"],
)
def test_nothing_heavy_is_imported_before_it_is_used(statement):
    code = (
        "import sys\n"
        f"try: exec({statement!r})\n"
        "except SystemExit: pass\n"
        "print('\\n' + ' '.join(sys.modules))"
    )
    imported = {name.split(".")[0] for name in python(code).splitlines()[-1].split()}
    assert imported & HEAVY == set()


def test_optional_extras_are_imported_inside_functions_except_in_the_harness():
    found = {}
    for file in sorted((REPOSITORY / "clp_jax").rglob("*.py")):
        inner = [ast.parse(file.read_text("utf-8"))]
        while inner:
            node = inner.pop()
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [name.name for name in node.names]
                roots = {(getattr(node, "module", None) or names[0]).split(".")[0], *names}
                if optional := roots & {"torch", "lm_eval", "gensim"}:
                    found[file.name] = optional
            elif not isinstance(node, ast.FunctionDef):
                inner.extend(ast.iter_child_nodes(node))
    assert found == {"harness.py": {"lm_eval"}}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of what it is made of."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(
        REPOSITORY / "clp_jax", source / "clp_jax", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source / name)
    code = f"import setuptools.build_meta as build; build.build_wheel({str(folder)!r})"
    subprocess.run(
        [sys.executable, "-c", code], cwd=source, check=True, stdout=subprocess.PIPE, timeout=120
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_its_tasks_its_types_and_its_licence(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    ours = {
        str(file.relative_to(REPOSITORY))
        for pattern in ("*.py", "*.yaml", "py.typed")
        for file in (REPOSITORY / "clp_jax").rglob(pattern)
    }
    assert {name for name in held if ".dist-info/" not in name} == ours
    assert "clp_jax/py.typed" in held
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)


def test_the_wheel_works_in_an_environment_that_holds_nothing_else_of_ours(wheel, tmp_path):
    """The dependencies are those of this environment; `scripts/wheel` installs them anew."""
    empty = tmp_path / "empty"
    venv.create(empty, symlinks=True)
    python = empty / "bin" / "python"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def output(*command: str | Path) -> str:
        done = subprocess.run(
            command,
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout.strip()

    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    output(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel)
    (packages,) = empty.glob("lib/python3*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    assert output(empty / "bin" / "clp-jax", "--version") == f"clp-jax {PROJECT['version']}"
    assert output(python, "-c", "import clp_jax; print(clp_jax.__file__)") == str(
        packages / "clp_jax" / "__init__.py"
    )


def test_the_workflows_test_each_python_that_is_promised():
    promised = [name.rpartition(" ")[2] for name in PROJECT["classifiers"]]
    promised = [version for version in promised if version.startswith("3.")]
    for file in sorted((REPOSITORY / ".github" / "workflows").glob("*.yml")):
        jobs = yaml.safe_load(file.read_text("utf-8"))["jobs"]
        tested = [job["strategy"]["matrix"]["python"] for job in jobs.values() if "strategy" in job]
        assert tested == [promised], file.name
        runs = [step["run"].split()[0] for job in jobs.values() for step in job["steps"][2:]]
        assert runs
        assert all(os.access(REPOSITORY / command, os.X_OK) for command in runs), runs


@pytest.mark.parametrize("python_version", ["3.11", "3.12", "3.13"])
def test_each_direct_dependency_has_a_tested_version(python_version):
    lines = (REPOSITORY / "constraints.txt").read_text("utf-8").splitlines()
    pins: dict[str, list[str]] = {}
    for pin in (Requirement(line) for line in lines if not line.startswith("#")):
        if pin.marker is None or pin.marker.evaluate({"python_version": python_version}):
            (version,) = pin.specifier
            assert version.operator == "=="
            pins.setdefault(canonicalize_name(pin.name), []).append(version.version)
    assert all(len(versions) == 1 for versions in pins.values())

    extras = PROJECT["optional-dependencies"]
    wanted = PROJECT["dependencies"] + extras["torch"] + extras["eval"] + extras["vectors"]
    wanted += extras["dev"] + extras["docs"]
    for requirement in map(Requirement, wanted):
        (version,) = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement
