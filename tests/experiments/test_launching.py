"""Launches in which processes end before their run does: which runs are launched again, and what they return."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import ConfigCompositionException

from experiments.command_line.launching import Lost, surviving
from experiments.command_line.results import RECORDS
from experiments.errors import UserError
from experiments.run.sweep import Outcome


class Machine:
    """A launcher whose processes end in the jobs of ``kills``: job -> how often.

    As under joblib (``together``) the call raises, and jobs that are under way at that time are lost as well; or else
    the others go on, and a lost job is a ``Lost``. ``width`` jobs are under way at a time.
    """

    def __init__(self, folder: Path, kills: dict[int, int], together: bool, width: int = 2) -> None:
        self.folder, self.kills, self.together, self.width = folder / RECORDS, dict(kills), together, width
        self.folder.mkdir(exist_ok=True)
        self.calls: list[list[int]] = []

    def launch(self, jobs: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        numbers = list(range(first, first + len(jobs)))
        assert [job[0] for job in jobs] == [f"seed={number}" for number in numbers]
        self.calls.append(numbers)
        returns = []
        for start in range(0, len(numbers), self.width):
            now = numbers[start : start + self.width]
            for number in now:
                Outcome([f"seed={number}"], process=1).write(self.folder / f"{number}.json")
            killed = [number for number in now if self.kills.get(number, 0) > 0]
            for number in killed:
                self.kills[number] -= 1
            if killed and self.together:
                raise OSError("a worker was killed\nSIGKILL")
            for number in now:
                if number not in killed:
                    Outcome([f"seed={number}"], error="no model").write(self.folder / f"{number}.json")
                lost = Lost(OSError("a worker was killed\nSIGKILL"))
                returns.append(
                    lost if number in killed else JobReturn(status=JobStatus.COMPLETED, _return_value=number)
                )
        return returns

    def outcomes(self) -> list[Outcome]:
        return [Outcome.read(self.folder / f"{number}.json") for number in range(len(list(self.folder.iterdir())))]


JOBS = [[f"seed={number}"] for number in range(6)]


@pytest.mark.parametrize(
    ("kills", "together", "calls"),
    [
        ({}, True, [[0, 1, 2, 3, 4, 5]]),
        ({2: 1}, False, [[0, 1, 2, 3, 4, 5], [2]]),
        ({2: 1}, True, [[0, 1, 2, 3, 4, 5], [4, 5], [2], [3]]),  # 3 was under way beside it
        ({1: 1, 4: 1}, True, [[0, 1, 2, 3, 4, 5], [2, 3, 4, 5], [4], [5], [0], [1]]),
    ],
)
def test_runs_whose_process_ended_are_launched_once_more_alone(tmp_path, kills, together, calls):
    machine = Machine(tmp_path, kills, together)
    returns = surviving(machine.launch, JOBS, 0, tmp_path)
    assert machine.calls == calls
    assert [one.status for one in returns] == [JobStatus.COMPLETED] * 6
    assert [outcome.error for outcome in machine.outcomes()] == ["no model"] * 6


@pytest.mark.parametrize("together", [True, False])
def test_a_run_whose_process_ends_twice_has_failed_and_counts_as_infinity(tmp_path, together):
    machine = Machine(tmp_path, {3: 9, 0: 9}, together)
    returns = surviving(machine.launch, JOBS, 0, tmp_path)
    values = [one.return_value for one in returns]
    assert [number for number, value in enumerate(values) if value == math.inf and number in (0, 3)] == [0, 3]
    told = "its process ended before the run did, twice: OSError: a worker was killed"
    assert [outcome.error == told for outcome in machine.outcomes()] == [number in (0, 3) for number in range(6)]
    assert machine.outcomes()[3].overrides == ["seed=3"]
    assert sum(number == 3 for call in machine.calls for number in call) <= 3


def test_a_launcher_that_starts_no_process_is_a_mistake_in_one_sentence(tmp_path):
    def launch(jobs: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        raise RuntimeError('Could not detect "srun", are you indeed on a slurm cluster?')

    with pytest.raises(UserError, match='the launcher starts no process: RuntimeError: Could not detect "srun"'):
        surviving(launch, JOBS, 0, tmp_path)


def test_a_mistake_in_the_configuration_is_told_and_not_tried_again(tmp_path):
    calls = []

    def launch(jobs: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        calls.append(first)
        (tmp_path / RECORDS).mkdir()
        Outcome(["seed=0"]).write(tmp_path / RECORDS / "0.json")
        raise ConfigCompositionException("Could not override 'sed'")

    with pytest.raises(ConfigCompositionException):
        surviving(launch, JOBS, 0, tmp_path)
    assert calls == [0]
