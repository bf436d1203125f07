"""What is installed: the wheel, the tested versions, and what an import costs."""

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
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


def test_the_wheel_holds_the_package_its_tasks_and_its_licence(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(
        REPOSITORY / "clp_jax", source / "clp_jax", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source / name)
    code = f"import setuptools.build_meta as build; build.build_wheel({str(tmp_path)!r})"
    subprocess.run(
        [sys.executable, "-c", code], cwd=source, check=True, stdout=subprocess.PIPE, timeout=120
    )
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    ours = {
        str(file.relative_to(source))
        for pattern in ("*.py", "*.yaml")
        for file in (source / "clp_jax").rglob(pattern)
    }
    assert {name for name in held if ".dist-info/" not in name} == ours
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)


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
    wanted += extras["dev"]
    for requirement in map(Requirement, wanted):
        (version,) = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement
