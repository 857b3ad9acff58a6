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


SIDES = {"no teleports": "none", "teleports": "nullspace", "random moves": "random"}


def recorded(runs, side):
    """The summary of a side; of the two without teleports that of the lower rate."""
    found = []
    for folder in runs.glob(f"digits-mlp-sgd-{SIDES[side]}-*"):
        rate = float(re.search(r"^  lr: (\S+)$", (folder / "config.yaml").read_text(), flags=re.MULTILINE).group(1))
        found.append((rate, json.loads((folder / "summary.json").read_text())))
    return min(found, key=lambda each: each[0])[1]


def test_it_says_what_the_runs_recorded_in_ten_lines(made):
    runs, _, ended = made
    report = ended.stdout[ended.stdout.index("training loss") :]
    assert report.count("\n") <= 10
    for side in SIDES:
        run = recorded(runs, side)
        end, _, test = re.search(rf"^{side} +(\S+) +(\S+) +(\S+)", report, flags=re.MULTILINE).groups()
        assert [end, test] == [f"{run[key]:.4f}" for key in ("train_loss", "test_loss")]
    assert len(list(runs.glob("digits-mlp-sgd-none-*"))) == 2  # the second at twice the rate
    ends = dict(re.findall(r"^(no teleports|teleports|random moves|twice the rate) +(\S+)", report, flags=re.MULTILINE))
    assert f"epochs: {min(ends, key=lambda side: float(ends[side]))};" in report


def test_a_second_time_nothing_is_trained(made):
    _, small, first = made
    second = demo(*small)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("already done") == 4
    assert second.stdout.endswith(first.stdout[first.stdout.index("training loss") :])


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
    plain, teleported, random = (recorded(tmp_path, side) for side in SIDES)
    assert teleported["relative_change"] > 1e-6
    assert teleported["train_loss"] < plain["train_loss"]
    assert teleported["train_loss"] < random["train_loss"]
