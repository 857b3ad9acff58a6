"""Many runs by one command: a failing one does not stop the others, and a table of all closes."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments import files
from experiments.errors import UserError

log = logging.getLogger(__name__)

COLUMNS = ["overrides", "train_loss", "test_loss", "metric", "test_metric", "seconds", "folder", "error"]


@dataclass
class Job:
    """One run of a sweep: what it was asked by, and its result once there is one."""

    overrides: str
    future: Future[Path]

    def row(self) -> dict[str, Any]:
        """The job's line of the table; waits for the job."""
        row: dict[str, Any] = {"overrides": self.overrides}
        error = self.future.exception()
        if error is not None:
            return row | {"error": str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"}
        folder = self.future.result()
        row["folder"] = str(folder)
        if (folder / "summary.json").is_file():  # a figure's folder has none
            summary = json.loads((folder / "summary.json").read_text())
            row |= {key: summary[key] for key in COLUMNS if key in summary}
        return row


class Sweep:
    """The runs of one command, one after the other or ``machine.jobs`` side by side in processes of their own.

    Args:
        make: makes what a configuration asks for and returns its folder; a function of a module, for other processes.
    """

    def __init__(self, make: Callable[[DictConfig], Path]) -> None:
        self.make = make
        self.jobs: list[Job] = []
        self.runs = Path("runs")
        self._pool: ProcessPoolExecutor | None = None

    def add(self, overrides: str, config: DictConfig) -> None:
        """Make the run of ``config`` now, or hand it to a process."""
        self.runs = Path(config.machine.runs)
        jobs = config.machine.jobs
        log.info("\nrun %d of the sweep: %s", len(self.jobs) + 1, overrides)
        if jobs > 1 and config.figure is None:  # a figure makes its own runs side by side
            if self._pool is None:
                self._pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), log_to_console)
            if config.machine.threads is None:
                config.machine.threads = max(1, (os.cpu_count() or 1) // jobs)
            future = self._pool.submit(self.make, config)
        else:
            future = _now(self.make, config)
        self.jobs.append(Job(overrides, future))

    def close(self) -> bool:
        """Wait for all, print the table and write it under ``<machine.runs>/sweeps/``; whether all went well.

        Raises:
            UserError: the table cannot be written.
        """
        rows = [job.row() for job in self.jobs]
        if self._pool is not None:
            self._pool.shutdown()
        log.info("\n%s", table(rows))
        path = self.runs / "sweeps" / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{os.getpid()}.csv"
        files.write_csv(path, COLUMNS, rows)
        failed = sum("error" in row for row in rows)
        log.info("%d runs, %d failed; table: %s", len(rows), failed, path)
        return failed == 0


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text; where a run failed, why, in place of its numbers."""
    lines = [("overrides", "train loss", "test loss", "metric", "seconds", "folder or error")]
    for row in rows:
        numbers = [_short(row.get(key)) for key in ("train_loss", "test_loss", "test_metric", "seconds")]
        if row.get("metric"):
            numbers[2] = f"{row['metric']} {numbers[2]}"
        lines.append((row["overrides"], *numbers, row.get("error") or row.get("folder", "")))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]) for line in lines
    )


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _now(make: Callable[[DictConfig], Path], config: DictConfig) -> Future[Path]:
    """A future that is done: the run is made in this process."""
    future: Future[Path] = Future()
    try:
        future.set_result(make(config))
    except UserError as error:
        log.info("failed: %s", error)
        future.set_exception(error)
    except Exception as error:  # a bug in one run, told with its traceback, must not cost the others
        log.exception("failed")
        future.set_exception(error)
    return future


def log_to_console() -> None:
    """Lines of ``experiments`` go to stdout as they are."""
    log = logging.getLogger("experiments")
    log.handlers = [logging.StreamHandler(sys.stdout)]
    log.setLevel(logging.INFO)
