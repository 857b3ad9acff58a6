"""The demo, as a newcomer runs it, at its smallest size."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def demo(*overrides: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "scripts/demo.py", *overrides]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    small = ["scale=smoke", "model.widths=[256,256]", f"machine.runs={runs}", "machine.device=cpu"]
    return runs, small, demo(*small)


def test_it_draws_a_picture_and_says_where(made):
    runs, _, ended = made
    assert ended.returncode == 0, ended.stderr
    picture = Path(re.search(r"^picture: (.*)$", ended.stdout, flags=re.MULTILINE).group(1))
    assert picture.parent == runs.resolve()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_it_says_what_the_runs_recorded(made):
    _, _, ended = made
    folders = re.findall(r"^run (?:without|with teleports): (.*)$", ended.stdout, flags=re.MULTILINE)
    recorded = [json.loads((Path(folder) / "summary.json").read_text()) for folder in folders]
    assert [run["events"] for run in recorded] == [0, 1]
    for name, key in (("training loss", "train_loss"), ("test loss", "test_loss"), ("test accuracy", "test_metric")):
        said = re.search(rf"{name}, at the end +(\S+) +(\S+)", ended.stdout).groups()
        assert list(said) == [f"{run[key]:.4f}" for run in recorded]
    start = re.search(r"training loss, at the start +(\S+) +(\S+)", ended.stdout).groups()
    assert start[0] == start[1]  # the same initialisation, before any teleport


def test_a_second_time_nothing_is_trained(made):
    _, small, first = made
    second = demo(*small)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("already done") == 2
    report = first.stdout[first.stdout.index("training loss, at the start") :]
    assert second.stdout.endswith(report)


def test_a_mistake_is_one_sentence(tmp_path):
    ended = demo("optimizer.lrr=1", f"machine.runs={tmp_path}")
    assert ended.returncode == 2
    assert "lrr" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_at_its_own_size_teleports_lower_the_training_loss(tmp_path):
    ended = demo(f"machine.runs={tmp_path}", "machine.device=cpu")
    assert ended.returncode == 0, ended.stderr
    plain, teleported = (
        json.loads(next(tmp_path.glob(f"digits-mlp-sgd-{name}-*/summary.json")).read_text())
        for name in ("none", "nullspace")
    )
    assert not teleported["no_op"]
    assert teleported["relative_change"] > 1e-6
    assert teleported["train_loss"] < plain["train_loss"]
