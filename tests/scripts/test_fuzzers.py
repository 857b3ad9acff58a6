"""The fuzzer of the command line at small size, that it can find something, and the script that runs all fuzzers."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.command_line import command_line, job
from experiments.errors import UserError
from scripts.fuzz._command_line.overrides import Case
from scripts.fuzz._command_line.trial import findings
from scripts.fuzz.command_line import main

ROOT = Path(__file__).parents[2]
RUNNER = runpy.run_path(str(ROOT / "scripts" / "run_fuzzers.py"))


def test_a_few_command_lines_hold_what_all_must(capsys):
    assert main(["--cases", "12", "--seed", "5"]) == 0
    assert "12 command lines from seed 5: 0 findings" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif("TELEPORT_LARGE" not in os.environ, reason="takes many minutes: make fuzz, or TELEPORT_LARGE=1")
def test_many_command_lines_hold_what_all_must():
    assert main(["--cases", "60", "--seed", "7"]) == 0


def test_the_fuzzer_finds_a_value_that_yaml_reads_otherwise(monkeypatch):
    """``seed='7'`` stays as it is; ``010`` is 10 on an unchecked command line and refused in a file."""
    monkeypatch.setattr(command_line, "check_overrides", lambda overrides: None)
    assert list(findings(Case({}, {"seed": "'7'"}), train=False)) == []
    (found,) = findings(Case({}, {"seed": "010"}), train=False)
    assert found.startswith("not alike")


def test_the_fuzzer_finds_a_traceback_and_what_a_refusal_leaves_behind(monkeypatch):
    def breaks(config, launch=None):
        raise ZeroDivisionError

    monkeypatch.setattr(job, "make", breaks)
    assert [each.partition(",")[0] for each in findings(Case({}, {"seed": "1"}), train=False)] == ["traceback"]

    def leaves(config, launch=None):
        folder = Path(config.machine.runs)
        folder.mkdir()
        raise UserError("no")

    monkeypatch.setattr(job, "make", leaves)
    found = list(findings(Case({}, {"seed": "1"}), train=False))
    assert [each.split()[0] for each in found] == ["wrote", "names"]


def test_the_runner_finds_the_fuzzers_and_passes_on_what_they_exit_with(tmp_path):
    names = RUNNER["fuzzers"]()
    assert {"command_line", "reports"} <= set(names)
    assert not [name for name in names if name.startswith("_")]
    (tmp_path / "scripts" / "fuzz").mkdir(parents=True)
    script = tmp_path / "scripts" / "run_fuzzers.py"
    script.write_text((ROOT / "scripts" / "run_fuzzers.py").read_text())
    for name, code in (("good", 0), ("bad", 1), ("_part", 5)):
        text = f"import sys\nprint('{name}', *sys.argv[1:])\nsys.exit({code})\n"
        (tmp_path / "scripts" / "fuzz" / f"{name}.py").write_text(text)
    for words, code, said in (
        (["--cases", "3", "--seed", "4"], 1, "good --seed 4 --cases 3"),
        (["good"], 0, "== good: exit code 0"),
        (["worse"], 2, "unknown fuzzer 'worse'; there are bad, good"),
        (["--cases", "0"], 2, "--cases takes a whole number of at least 1"),
    ):
        done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
        assert done.returncode == code
        assert said in done.stdout + done.stderr
