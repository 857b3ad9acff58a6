"""The Makefile and the files around it: what a newcomer meets first, and what it says where it cannot go on."""

import os
import re
import subprocess
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
    wanted = {
        one.name: one for one in map(Requirement, project["dependencies"] + project["optional-dependencies"]["dev"])
    }
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pins = dict(line.split("==") for line in lines)
    assert {"torch", "torchvision", "numpy", "hydra-core", "ruff", "mypy"} <= set(pins)
    for name, version in pins.items():
        assert name not in wanted or version in wanted[name].specifier, name


def test_citation_names_the_papers():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["license"] == "MIT"
    years = {(reference["authors"][0]["family-names"], reference["year"]) for reference in cited["references"]}
    assert {("Wu", 2025), ("Armenta", 2023), ("Zhao", 2022), ("Zhao", 2023), ("Mishkin", 2024)} <= years
