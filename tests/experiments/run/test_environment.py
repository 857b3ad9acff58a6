from __future__ import annotations

import re
import subprocess

import torch

from experiments.run.environment import commit, environment


def test_an_environment_names_versions_and_device():
    recorded = environment(torch.device("cpu"))
    assert recorded["packages"]["torch"] == torch.__version__
    assert recorded["device"] == "cpu"
    assert recorded["device_name"]


def test_a_commit_is_forty_digits_or_none():
    assert commit() is None or re.fullmatch(r"[0-9a-f]{40}\+?", commit())


def test_changed_results_are_no_change_of_the_code(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    code, result = tmp_path / "package" / "code.py", tmp_path / "results" / "table.csv"
    for path in (code, result):
        path.parent.mkdir()
        path.write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    clean = commit(code.parent)
    assert re.fullmatch(r"[0-9a-f]{40}", clean)
    result.write_text("2")
    assert commit(code.parent) == clean
    code.write_text("2")
    assert commit(code.parent) == clean + "+"
