"""The types of the installed package, as a program of a user sees them: from a wheel, without the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.commands import finished
from tests.test_setup import build, project  # noqa: F401  a fixture

PROGRAM = Path(__file__).with_name("typed_program.py")
WRONG = [number for number, line in enumerate(PROGRAM.read_text().splitlines(), 1) if line.endswith("# wrong")]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outside(project, tmp_path_factory) -> Path:  # noqa: F811
    """A folder with the program, beside an environment that has the wheel, and torch from this one."""
    folder = tmp_path_factory.mktemp("outside")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=120)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    build("wheel", project, folder).extractall(packages)
    others = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "others.pth").write_text("\n".join(others) + "\n")
    shutil.copy(PROGRAM, folder)
    return folder


def alone(command: Sequence[object], folder: Path) -> subprocess.CompletedProcess[str]:
    """The command without the checkout on its path, where a command line of the suite puts it."""
    return finished(command, cwd=folder, env={key: os.environ[key] for key in os.environ if key != "PYTHONPATH"})


def test_the_environment_has_the_wheel(outside):
    told = alone([outside / "venv/bin/python", "-c", "import teleport; print(teleport.__file__)"], outside)
    assert told.stdout.startswith(str(outside / "venv")), told.stderr


def test_mypy_agrees(outside):
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", outside / "venv/bin/python"]
    done = alone([*command, "--cache-dir", outside / "cache", PROGRAM.name], outside)
    lines = re.findall(rf"^{PROGRAM.name}:(\d+): error: ", done.stdout, flags=re.MULTILINE)
    assert sorted({int(line) for line in lines}) == WRONG, done.stdout + done.stderr
    assert not re.search(r"^(?!typed_program).*: error: ", done.stdout, flags=re.MULTILINE), done.stdout


def test_pyright_agrees(outside):
    pytest.importorskip("pyright", reason="needs pyright: pip install -e '.[dev]'")
    if shutil.which("node") is None:
        pytest.skip("pyright needs Node.js on the PATH")
    (outside / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard", "include": ["typed_program.py"]}')
    command = [sys.executable, "-m", "pyright", "--pythonpath", outside / "venv/bin/python"]
    done = alone(command, outside)
    if done.returncode not in (0, 1):
        pytest.skip(f"pyright does not start here: {(done.stderr or done.stdout).strip()[-300:]}")
    lines = re.findall(rf"{PROGRAM.name}:(\d+):\d+ - error: ", done.stdout)
    assert sorted({int(line) for line in lines}) == WRONG, done.stdout
