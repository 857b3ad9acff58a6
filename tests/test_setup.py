"""The Makefile and the files around it: what a newcomer meets first, and what it says where it cannot go on."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()


def make(*words: str, venv: Path) -> subprocess.CompletedProcess:
    outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}  # of a `make test` that this runs in
    environment = {key: value for key, value in os.environ.items() if key not in outer}
    return subprocess.run(
        ["make", f"VENV={venv}", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )  # fmt: skip


@pytest.fixture
def installed(tmp_path):
    """An environment that counts as made."""
    (tmp_path / ".installed").touch()
    return tmp_path


def test_help_is_the_default_and_names_every_target(installed):
    shown = make(venv=installed).stdout
    targets = re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE).group(1).split()
    assert {"setup", "demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^  {target} +\S", shown, flags=re.MULTILINE), target


def test_a_missing_python_is_one_sentence(tmp_path):
    asked = make("setup", "PYTHON=no-such-python", venv=tmp_path / "venv")
    assert asked.returncode != 0
    assert "'no-such-python' is not on the PATH" in asked.stderr
    assert not (tmp_path / "venv").exists()


def test_an_old_python_is_one_sentence(tmp_path):
    old = tmp_path / "python-old"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.1" && exit 0\nexit 1\n')
    old.chmod(0o755)
    asked = make("setup", f"PYTHON={old}", venv=tmp_path / "venv")
    assert asked.returncode != 0
    assert "Python 3.9.1 is too old" in asked.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(("target", "what"), [("reproduce", "FIG=nullspace/fig8"), ("data", "NAMES=all")])
def test_a_missing_value_is_one_sentence_with_an_example(target, what, installed):
    asked = make(target, venv=installed)
    assert asked.returncode != 0
    assert what in asked.stderr


def test_setup_runs_once(installed):
    assert "pip install" not in make("--dry-run", "test", venv=installed).stdout
    os.utime(installed / ".installed", (0, 0))  # older than pyproject.toml
    assert "pip install" in make("--dry-run", "test", venv=installed).stdout


def test_constraints_agree_with_the_requirements():
    """A pin outside of what pyproject.toml allows would make set-up fail on every machine."""
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {one.name: one for one in map(Requirement, project["dependencies"] + extras["suite"] + extras["dev"])}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pins = dict(line.split("==") for line in lines)
    assert {"torch", "torchvision", "numpy", "hydra-core", "ruff", "mypy"} <= set(pins)
    for name, version in pins.items():
        assert name not in wanted or version in wanted[name].specifier, name


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of what a build reads, and of what it must leave out, so that the checkout stays as it is."""
    copy = tmp_path_factory.mktemp("project")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("teleport", "experiments", "conf", "scripts", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "run.py"):
        shutil.copy(ROOT / name, copy)
    return copy


def build(kind: str, project: Path, folder: Path) -> zipfile.ZipFile:
    """The wheel that `pip install .` (``wheel``) or `pip install -e .` (``editable``) builds."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(folder)!r}))"
    built = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return zipfile.ZipFile(folder / built.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_wheel_holds_the_library_alone_and_needs_torch_alone(project, tmp_path):
    wheel = build("wheel", project, tmp_path)
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    library = {str(file.relative_to(ROOT)) for file in (ROOT / "teleport").rglob("*.py")}
    assert held == {*library, "teleport/py.typed"}
    metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("/METADATA"))).decode()
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert needed == ["Requires-Dist: torch>=2.6"]


@pytest.mark.slow
def test_an_editable_install_puts_the_checkout_on_the_path(project, tmp_path):
    """This is how scripts/ find experiments/, which no wheel holds."""
    wheel = build("editable", project, tmp_path)
    paths = [wheel.read(name).decode().split() for name in wheel.namelist() if name.endswith(".pth")]
    assert paths == [[str(project)]]


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(file.name for file in (ROOT / "scripts").glob("*.py")))
def test_scripts_start_from_another_folder(script, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # what an editable install puts on the path
    command = [sys.executable, ROOT / "scripts" / script, "--help"]
    started = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert started.returncode == 0, started.stderr
    assert script in started.stdout


def imported(file: Path) -> set[str]:
    """Top-level packages that a module cannot do without; an import whose ``ImportError`` is caught is an option."""
    found: set[str] = set()
    left: list[ast.AST] = [ast.parse(file.read_text())]
    while left:
        node = left.pop()
        if isinstance(node, ast.Try) and any("ImportError" in ast.unparse(each) for each in node.handlers):
            left += [*node.orelse, *node.finalbody]
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
        left += ast.iter_child_nodes(node)
    return found


def test_the_library_asks_for_nothing_but_torch():
    """In an environment of torch alone nothing else can be imported."""
    for file in (ROOT / "teleport").rglob("*.py"):
        of_extra = {"scipy"} if file.name == "assignment.py" else set()  # extra `match`; its absence is tested with it
        assert imported(file) <= {"torch", "teleport", *of_extra, *sys.stdlib_module_names}, file


EACH_METHOD = """
import sys
for name in ("numpy", "pandas", "scipy", "torchvision"):
    sys.modules[name] = None  # an import of it fails
import torch
from torch import nn
import teleport

torch.manual_seed(0)
inputs, targets = torch.randn(16, 20), torch.randint(5, (16,))
for name in sys.argv[1:]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.LeakyReLU(), nn.Linear(64, 64), nn.LeakyReLU(), nn.Linear(64, 5))
    method = getattr(teleport, name)()
    report = method(model, [inputs], lambda model, batch: nn.functional.cross_entropy(model(batch), targets))
    print(name, report.no_op)
"""


@pytest.mark.slow
def test_every_method_runs_without_numpy(tmp_path):
    methods = ["NullSpace", "RandomNullSpace", "LevelSet", "Rescaling", "Symmetry", "ChangeOfBasis", "PseudoTeleport"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", EACH_METHOD, *methods]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [f"{method} False" for method in methods]


def test_tests_of_the_library_import_nothing_of_the_suite():
    for file in (ROOT / "tests" / "teleport").rglob("*.py"):
        assert not re.search(r"^\s*(?:from|import) experiments", file.read_text(), flags=re.MULTILINE), file


def test_citation_names_the_papers():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["license"] == "MIT"
    years = {(reference["authors"][0]["family-names"], reference["year"]) for reference in cited["references"]}
    assert {("Wu", 2025), ("Armenta", 2023), ("Zhao", 2022), ("Zhao", 2023), ("Mishkin", 2024)} <= years
