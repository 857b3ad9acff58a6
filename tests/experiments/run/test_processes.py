"""A run under torchrun: as one process in its numbers, recorded once, and gone on with after a process is killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from experiments.command_line.command_line import main
from experiments.data.images import ImageSplit
from experiments.errors import UserError
from experiments.run.batches import TrainingBatches, smallest_batch
from experiments.run.processes import Processes
from tests.commands import finished, started
from tests.experiments.small import SMALL, SMALL_TELEPORT

ROOT = Path(__file__).parents[3]
RUN = [*SMALL, *SMALL_TELEPORT, "machine.device=cpu", "machine.progress=false", "machine.threads=1"]
LONG = [*RUN, "training.epochs=12", "machine.checkpoint_seconds=0"]


def command(folder: Path, *arguments: str, restarts: int = 0) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", f"--max-restarts={restarts}"]
    return [sys.executable, *torchrun, "run.py", *arguments, f"machine.runs={folder}"]


def torchrun(folder: Path, *arguments: str) -> str:
    """What the command says; it must succeed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = finished(command(folder, *arguments), cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(folder: Path, table: str) -> list[dict[str, str]]:
    """The rows of a table of the one run in ``folder``."""
    (file,) = folder.glob(f"*/{table}.csv")
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def numbers(folder: Path, table: str, *columns: str) -> list[float]:
    return [float(row[column]) for row in rows(folder, table) for column in columns]


@pytest.mark.slow
@pytest.mark.parametrize("teleport", ["nullspace", "auto"])
def test_two_processes_record_once_the_curve_of_one(tmp_path, monkeypatch, teleport):
    arguments = RUN if teleport == "nullspace" else [each for each in RUN if not each.startswith("teleport.steps")]
    arguments = [each.replace("teleport=nullspace", f"teleport={teleport}") for each in arguments]
    said = torchrun(tmp_path / "two", *arguments)
    assert said.count("epoch   2.00") == said.count("done: ") == 1
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments, f"machine.runs={tmp_path / 'one'}"])
    monkeypatch.chdir(ROOT)
    assert main() == 0
    for table, columns in {
        "curve": ("train_loss", "test_loss", "step"),
        "teleports": ("loss_before", "gradient_norm_before", "gradient_norm_after", "steps"),
    }.items():
        one, two = (numbers(tmp_path / name, table, *columns) for name in ("one", "two"))
        assert two == pytest.approx(one, rel=1e-4)
    (environment,) = (tmp_path / "two").glob("*/environment.json")
    assert json.loads(environment.read_text())["processes"] == 2
    (one,), (two,) = ((tmp_path / name).iterdir() for name in ("one", "two"))
    assert one.name == two.name
    assert {each.name for each in one.iterdir()} == {each.name for each in two.iterdir()}
    assert "already done" in torchrun(tmp_path / "two", *arguments)


def process_of_rank(parent: int, rank: int) -> int | None:
    """The process below ``parent`` to which torchrun gave a rank."""
    below = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for child in map(int, below):
        if f"\0RANK={rank}\0" in Path(f"/proc/{child}/environ").read_text():
            return child
    return None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for the process of a rank in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_goes_on_after_a_process_was_killed(tmp_path, rank):
    torchrun(tmp_path / "whole", *LONG)
    again = command(tmp_path / "killed", *LONG, restarts=1)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with started(again, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as running:
        while not list((tmp_path / "killed").glob("*/checkpoint.pt")):
            assert running.poll() is None
            time.sleep(0.01)
        child = process_of_rank(running.pid, rank)
        assert child is not None
        os.kill(child, signal.SIGKILL)
        said, errors = running.communicate()
    assert running.returncode == 0, errors
    assert "goes on from step" in said
    for table, columns in {"curve": ("step", "train_loss", "test_loss"), "teleports": ("gradient_norm_after",)}.items():
        whole, killed = (numbers(tmp_path / name, table, *columns) for name in ("whole", "killed"))
        assert killed == whole


@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_mean_over_parts_is_that_of_the_batch(size):
    batch = torch.randn(7, 4, dtype=torch.float64), torch.arange(7)
    losses, targets = [], []
    for rank in range(size):
        processes = Processes(rank, rank, size)
        inputs, own = processes.part(batch)
        targets.append(own)
        losses.append(processes.weighted(inputs.square().mean(), 7, len(inputs)))
    assert torch.equal(torch.cat(targets), batch[1])
    torch.testing.assert_close(torch.stack(losses).mean(), batch[0].square().mean())


@pytest.mark.parametrize("samples", [20, 21, 7])
@pytest.mark.parametrize("last", ["keep", "drop", "spread"])
def test_the_smallest_batch_is_that_of_an_epoch(samples, last):
    images = torch.zeros(samples, 1, 2, 2, dtype=torch.uint8)
    split = ImageSplit(images, torch.arange(samples), torch.zeros(1), torch.ones(1))
    settings = SimpleNamespace(batch_size=8, last_batch=last)
    batches = TrainingBatches(split, settings, 0, torch.device("cpu"))
    sizes = [len(batches.at(step)[0]) for step in range(batches.per_epoch)]
    assert smallest_batch(split, settings) == min(sizes)


def test_batches_that_leave_a_process_nothing_are_refused():
    config = SimpleNamespace(teleport=SimpleNamespace(name="nullspace", samples=2))
    Processes(0, 0, 2).check(config, 2)
    with pytest.raises(UserError, match=r"teleport\.samples is 2 and there are 3 processes"):
        Processes(0, 0, 3).check(config, 3)
    with pytest.raises(UserError, match="last batch of an epoch\\) is 1 and there are 2 processes"):
        Processes(0, 0, 2).check(config, 1)


@pytest.mark.parametrize(("arguments", "what"), [(["-m", "seed=0,1"], "sweep"), (["figure=nullspace/lead"], "figure")])
def test_torchrun_makes_neither_sweeps_nor_figures(monkeypatch, capsys, arguments, what):
    for name, value in {"TORCHELASTIC_RUN_ID": "one", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    monkeypatch.chdir(ROOT)
    assert main() == 2
    assert f"make a {what} without it" in capsys.readouterr().err
