"""Several runs by one command: a failing run does not stop the others, and up to ``machine.jobs`` run side by side."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import DictConfig

from experiments import files
from experiments.errors import UserError
from experiments.pools import process_pool

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """The result of one run of a sweep: its folder, or why it has none.

    ``process`` is the number of the process that made it, ``seconds`` the time that it took. A run that is under way
    has neither folder nor error.
    """

    overrides: list[str]
    folder: str = ""
    error: str = ""
    process: int = 0
    seconds: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether the run is complete or failed."""
        return bool(self.folder or self.error)

    def write(self, record: Path) -> None:
        """Write the outcome where the process that started the sweep reads it.

        Raises:
            UserError: it cannot be written.
        """
        files.write_json(record, asdict(self))

    @classmethod
    def read(cls, record: Path) -> Outcome:
        """The outcome that :meth:`write` wrote; a damaged file is an outcome with an error."""
        try:
            content = files.read_json(record, "make the run again")
        except UserError as error:
            return cls([], error=str(error))
        kinds = {"overrides": list, "folder": str, "error": str, "process": int, "seconds": float}
        if set(content) != set(kinds) or not all(isinstance(content[key], kind) for key, kind in kinds.items()):
            return cls([], error=f"'{record}' is damaged: it is no outcome; make the run again")
        return cls(**content)


def attempt(
    make: Callable[[DictConfig], Path], config: DictConfig, overrides: list[str], record: Path | None = None
) -> Outcome:
    """Make the run of ``config``. An error is logged and is part of the outcome, which ``record`` is written with."""
    outcome, start = Outcome(overrides, process=os.getpid()), time.monotonic()
    try:
        outcome.folder = str(make(config))
    except UserError as error:
        log.info("failed: %s", error)
        outcome.error = str(error)
    except Exception as error:  # logged; the other runs go on
        log.exception("failed")
        outcome.error = f"{type(error).__name__}: {error}"
    outcome.seconds = time.monotonic() - start
    if record is not None:
        outcome.write(record)
    return outcome


class Sweep:
    """The runs of one command, one after the other or ``machine.jobs`` side by side in processes of their own.

    Args:
        make: makes what a configuration asks for and returns its folder; a module-level function (it is pickled).
    """

    def __init__(self, make: Callable[[DictConfig], Path]) -> None:
        self.make = make
        self.futures: list[Future[Outcome]] = []
        self._pool: ProcessPoolExecutor | None = None

    def add(self, overrides: list[str], config: DictConfig, record: Path | None = None) -> Future[Outcome]:
        """Make the run of ``config`` now, or hand it to a process; its outcome, also written to ``record``."""
        jobs = config.machine.jobs
        future: Future[Outcome]
        if jobs > 1:
            if self._pool is None:
                self._pool = process_pool(jobs, log_to_console)
            if config.machine.threads is None:
                config.machine.threads = max(1, (os.cpu_count() or 1) // jobs)
            future = self._pool.submit(attempt, self.make, config, overrides, record)
        else:
            future = Future()
            future.set_result(attempt(self.make, config, overrides, record))
        self.futures.append(future)
        return future

    def wait(self) -> list[Outcome]:
        """The outcomes of all runs, in the order in which they were added. A process that is killed is an error."""
        outcomes = []
        try:
            for future in self.futures:
                try:
                    outcomes.append(future.result())
                except (Exception, CancelledError) as error:  # a process was killed: out of memory, or a signal
                    outcomes.append(Outcome([], error=f"its process ended: {type(error).__name__}: {error}"))
        except BaseException:  # Ctrl-C
            self.cancel()
            raise
        if self._pool is not None:
            self._pool.shutdown()
        return outcomes

    def cancel(self) -> None:
        """End the runs that are under way, and start none of those that wait for a process."""
        if self._pool is None:
            return
        processes = list((getattr(self._pool, "_processes", None) or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:  # a pool continues the runs that its processes have already received
            process.terminate()
        for process in processes:
            process.join()


def log_to_console() -> None:
    """Log lines of ``experiments`` go to stdout unchanged."""
    log = logging.getLogger("experiments")
    log.handlers = [logging.StreamHandler(sys.stdout)]
    log.setLevel(logging.INFO)
