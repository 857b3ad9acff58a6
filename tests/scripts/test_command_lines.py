"""Mistakes on the command lines of scripts: one sentence, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MISTAKES = {
    "structure.py --root {tmp}": "--root takes a checkout of the project",
    "reproduce.py nullspace/fig8 seed=010": "'seed' on the command line has the value 010",
    "profile_teleport.py seed=yes": "'seed' on the command line has the value yes",
    "profile_teleport.py --threads 100000 teleport=nullspace": "--threads must be a whole number from 1 to 1024",
    "claims.py {tmp}/none": "none' of results; name the one with the figures' tables",
    "tune.py digits mlp sgd --seeds 3,100": "the seed 3 is one of those that results are reported for",
    "tune.py digits mlp sgd scale=smoke": "name another table with --into",
    "tune.py digits mlp sgd seed=010": "'seed' on the command line has the value 010",
    "fingerprint.py --only none_such": "no run has 'none_such' in its name; there are none, null space",
    "fingerprint.py --against {tmp}/none.json": "--against takes a file that this script printed",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_sentence(line, tmp_path):
    script, *words = line.format(tmp=tmp_path).split()
    command = [sys.executable, str(ROOT / "scripts" / script), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert MISTAKES[line] in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
