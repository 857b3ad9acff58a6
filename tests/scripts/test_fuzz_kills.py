"""The fuzzer of kills at small size, and that it can find something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITHOUT_CLEANING = """
import sys
from experiments import files
from scripts.fuzz.kills import main
files.clean_shared = lambda folder: None
sys.exit(main(sys.argv[1:]))
"""


def fuzz(*arguments: str, code: str = "import sys; from scripts.fuzz.kills import main; sys.exit(main(sys.argv[1:]))"):
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_a_redraw_that_was_killed_is_repeated_without_a_trace():
    done = fuzz("--commands", "redraw", "--cases", "3", "--seed", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills, 0 findings" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif("TELEPORT_LARGE" not in os.environ, reason="takes many minutes: make fuzz, or TELEPORT_LARGE=1")
def test_what_is_left_behind_is_found():
    done = fuzz("--commands", "redraw", code=WITHOUT_CLEANING)
    assert done.returncode == 1
    assert "other files or content: nullspace/fig11/.fig11.pdf" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif("TELEPORT_LARGE" not in os.environ, reason="takes many minutes: make fuzz, or TELEPORT_LARGE=1")
def test_runs_and_sweeps_that_were_killed_are_repeated_without_a_trace():
    done = fuzz("--cases", "12", "--seed", "3")
    assert done.returncode == 0, done.stdout + done.stderr
