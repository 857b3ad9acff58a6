"""The runs of a sweep under a launcher whose processes may end before their run does, as if a machine is out of memory.

Such a run is launched once more, alone, and goes on from its checkpoint. If its process ends again, it has failed, and
the others go on. No run is computed twice, as each holds the lock of its folder.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus

from experiments.command_line.results import RECORDS
from experiments.configuration.mistakes import of_command_line
from experiments.errors import UserError
from experiments.run.sweep import Outcome
from experiments.run.sweep_table import metric_to_minimise

log = logging.getLogger(__name__)

BASIC = {
    "launcher": "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "sweeper": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
}
"""Hydra's own launcher and sweeper, which call the jobs in turn and read no metric."""

ROOT = Path(__file__).parents[2]

Overrides = Sequence[str]


def found_by_workers() -> None:
    """Let the processes of a launcher find ``experiments/``, which they inherit by the environment."""
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if str(ROOT) not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *paths])


class Lost(JobReturn):
    """Stands for the result of a job whose process ended before the job did."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(status=JobStatus.FAILED, _return_value=error)


Launch = Callable[[Sequence[Overrides], int], Sequence[JobReturn]]
"""Makes the jobs with these overrides, the first of which has the given number. A job whose process ended is either
:class:`Lost`, or an exception of the call, after which no job is under way."""


def surviving(launch: Launch, jobs: Sequence[Overrides], first: int, folder: Path) -> list[JobReturn]:
    """The results of ``jobs``, those of lost ones from a second launch.

    Args:
        launch: of the plugin.
        jobs: overrides per job.
        first: the number of the first job.
        folder: of the sweep, which holds the outcomes.

    Raises:
        UserError: no job could be begun.
    """
    records = [folder / RECORDS / f"{first + number}.json" for number in range(len(jobs))]
    try:
        returns = list(launch(jobs, first))
    except Exception as error:
        if of_command_line(error) is not None:
            raise
        if not any(record.exists() for record in records):
            raise UserError(f"the launcher starts no process: {_in_words(error)}") from error
        returns = [_known(record) or Lost(error) for record in records]
    not_begun = [isinstance(one, Lost) and not record.exists() for one, record in zip(returns, records, strict=True)]
    for start, end in _segments(not_begun):
        try:
            returns[start:end] = surviving(launch, jobs[start:end], first + start, folder)
        except UserError as error:
            returns[start:end] = [_failed(records[number], str(error), jobs[number]) for number in range(start, end)]
    for number, one in enumerate(returns):
        if isinstance(one, Lost):
            log.info("run %d of the sweep is launched again: %s", first + number + 1, _in_words(one._return_value))
            returns[number] = _alone(launch, jobs[number], first + number, records[number])
    return returns


def _alone(launch: Launch, job: Overrides, number: int, record: Path) -> JobReturn:
    try:
        (returned,) = launch([job], number)
    except Exception as error:
        returned = Lost(error)
    if not isinstance(returned, Lost):
        return returned
    told = f"its process ended before the run did, twice: {_in_words(returned._return_value)}"
    return _failed(record, told, job)


def _known(record: Path) -> JobReturn | None:
    """The result of a job that has ended by itself."""
    if record.exists() and (outcome := Outcome.read(record)).ended:
        return _returned(outcome)
    return None


def _failed(record: Path, error: str, job: Overrides) -> JobReturn:
    outcome = Outcome.read(record) if record.exists() else Outcome(list(job))
    outcome.error = error
    outcome.write(record)
    return _returned(outcome)


def _returned(outcome: Outcome) -> JobReturn:
    loss = metric_to_minimise(outcome)
    return JobReturn(status=JobStatus.COMPLETED, _return_value=math.inf if loss is None else loss)


def _segments(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """Start and end of each row of neighbours that are true."""
    edges = [number for number in range(len(flags) + 1) if (*flags, False)[number] != (False, *flags)[number]]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _in_words(error: BaseException) -> str:
    """The first line of a message, or its last one after a traceback of another process."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return f"{type(error).__name__}: {lines[-1 if 'Traceback' in str(error) else 0]}"
