"""Mutation testing of a package of two functions: a mutant that a test kills, and one that no test can."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cosmic_ray", reason="needs the extra 'mutation'")
pytest.importorskip("pytest_cov", reason="needs the extra 'mutation'")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

PACKAGE = '''
"""Not mutated: 1 + 1."""
__all__ = ["either", "same"]
def either(a: int | None, b: int | None) -> int | None:
    assert a is not b, f"{a and b}"
    return a or b
def same(a):
    return a or a
'''

TESTS = """
from teleport import either, same
def test_one_is_enough():
    assert either(0, 3) == 3
def test_the_value_itself():
    assert [same(0), same(3)] == [0, 3]
"""


def test_a_fault_is_killed_and_an_equivalent_change_survives(tmp_path):
    for name, text in {"teleport/__init__.py": PACKAGE, "tests/teleport/test_both.py": TESTS}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    results = tmp_path / "mutants.jsonl"
    command = [sys.executable, str(ROOT / "scripts" / "mutation.py"), "--root", str(tmp_path)]
    command += ["--results", str(results), "--cache", str(tmp_path / "cache")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    first = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "1 of 2 mutants killed (50.0%); 2 sampled of 2 places" in first
    records = {record["outcome"]: record for record in map(json.loads, results.read_text().splitlines())}
    assert records["killed"]["diff"] == "-    return a or b\n+    return a and b"
    assert records["killed"]["by"] == "tests/teleport/test_both.py::test_one_is_enough"
    assert records["survived"]["diff"] == "-    return a or a\n+    return a and a"
    assert records["survived"]["tests"] == 1

    written = results.read_bytes()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert results.read_bytes() == written
    assert again.splitlines()[-1] == first.splitlines()[-1]
