"""Runs one after the other and side by side, with runs that fail and processes that end."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from experiments.errors import UserError
from experiments.run.sweep import Outcome, Sweep


def make(config: DictConfig) -> Path:
    """What ``config.does`` says, in place of a run."""
    if config.does == "mistake":
        raise UserError("wrong")
    if config.does == "bug":
        raise ZeroDivisionError("oh")
    if config.does == "end":
        os._exit(3)
    if config.does == "wait":
        (Path(config.folder) / f"started-{os.getpid()}-{time.monotonic_ns()}").touch()
        time.sleep(60)
    return Path(config.folder)


def config(does: str, jobs: int, folder: Path = Path("here")) -> DictConfig:
    return OmegaConf.create({"does": does, "folder": str(folder), "machine": {"jobs": jobs, "threads": 1}})


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_fails_does_not_stop_the_others(tmp_path, jobs):
    sweep, does = Sweep(make), ["mistake", "well", "bug", "well"]
    for number, each in enumerate(does):
        sweep.add([f"does={each}"], config(each, jobs), tmp_path / f"{number}.json")
    outcomes = sweep.wait()
    assert [outcome.error for outcome in outcomes] == ["wrong", "", "ZeroDivisionError: oh", ""]
    assert [outcome.folder for outcome in outcomes] == ["", "here", "", "here"]
    assert all(outcome.ended for outcome in outcomes)
    assert (outcomes[0].process == os.getpid()) == (jobs == 1)
    records = [Outcome.read(tmp_path / f"{number}.json") for number in range(4)]
    assert records == outcomes


def test_a_process_that_ends_is_an_error_of_its_run():
    sweep = Sweep(make)
    sweep.add(["does=end"], config("end", 2))
    (outcome,) = sweep.wait()
    assert outcome.error.startswith("its process ended")


def test_cancelled_runs_end_and_those_that_wait_do_not_begin(tmp_path):
    """Two of five are under way; a pool hands its processes further ones in advance."""
    sweep = Sweep(make)
    for _ in range(5):
        sweep.add([], config("wait", 2, tmp_path))
    until = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    started = time.monotonic()
    sweep.cancel()
    assert time.monotonic() - started < 10
    time.sleep(0.3)
    assert len(list(tmp_path.iterdir())) == 2
