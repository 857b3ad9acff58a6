"""The results of a sweep, collected by a Hydra callback: progress, the table and the exit code under every launcher.

Each job leaves its outcome as a file in the sweep's folder (``hydra.sweep.dir``), whatever process it runs in. The
process that started the sweep reads them.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import threading
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from experiments import files
from experiments.configuration.sweeps import written_down
from experiments.errors import UserError
from experiments.run.sweep import Outcome, Sweep
from experiments.run.sweep_table import metric_to_minimise, read_summary, report

log = logging.getLogger("experiments.command_line")

RECORDS = ".jobs"
"""The folder of the outcomes, in that of the sweep."""

LOOK_EVERY = 0.5
"""Seconds between two looks for outcomes of other processes."""

pool: Sweep | None = None
"""The runs of this command that are made side by side, ``machine.jobs`` at a time."""

collection: Collection | None = None
"""The sweep of this command; ``None`` in the processes of a launcher, and for one run."""


class Results(Callback):
    """The callback that ``conf/config.yaml`` names. It holds nothing, as launchers send it to other processes."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Begin to watch for outcomes. If the folder cannot be made, that is kept, and Hydra fails to make it."""
        global collection
        runs = Path(OmegaConf.select(config, "machine.runs"))
        folder = Path(config.hydra.sweep.dir).absolute()
        try:
            with files.writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
        except UserError as error:
            collection = Collection(folder, runs, mistake=error)
        else:
            collection = Collection(folder, runs)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note that the job is under way, so that one whose process ends is in the table."""
        if config.hydra.mode is not None and config.hydra.mode.name == "MULTIRUN":
            hydra = HydraConfig.get()
            Outcome([written_down(each) for each in hydra.overrides.task], process=os.getpid()).write(record_of(hydra))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print and write the table; an error is kept, as Hydra would make a warning of it."""
        assert collection is not None
        try:
            collection.close()
        except UserError as error:
            collection.mistake = error


def record_of(hydra: DictConfig) -> Path:
    """The file of the outcome of the present job."""
    return Path(hydra.runtime.output_dir) / RECORDS / f"{hydra.job.num}.json"


class Collection:
    """The outcomes of one sweep.

    Args:
        folder: the sweep's, which its jobs write their outcomes to.
        runs: ``machine.runs``; the table goes to ``sweeps/`` there.
        mistake: why there is no such folder, and hence no outcome.
    """

    def __init__(self, folder: Path, runs: Path, mistake: UserError | None = None) -> None:
        self.folder, self.runs, self.mistake = folder, runs, mistake
        self.failed, self.diverged = 0, False
        self._closed = mistake is not None
        self._told: set[Path] = set()
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._tell_until_stopped, daemon=True)
        if not self._closed:
            self._watch.start()

    def outcomes(self) -> dict[Path, Outcome]:
        """The outcomes so far by their files, in the order of the jobs."""
        records = [record for record in (self.folder / RECORDS).glob("*.json") if record.stem.isdecimal()]
        return {record: Outcome.read(record) for record in sorted(records, key=lambda record: int(record.stem))}

    def finish(self, interrupted: bool = False) -> dict[Path, Outcome]:
        """Stop watching; the outcomes by their files, with the reason of a run that did not end."""
        self._closed = True
        self._stop.set()
        self._watch.join()
        self._tell()
        outcomes = self.outcomes()
        for outcome in outcomes.values():
            if not outcome.ended:
                outcome.error = "interrupted" if interrupted else "its process ended before the run did"
        return outcomes

    def close(self, interrupted: bool = False) -> None:
        """Wait for the runs that go on side by side, print the table and write it; once.

        Raises:
            UserError: the table cannot be written.
        """
        if self._closed:
            return
        if pool is not None:
            pool.cancel() if interrupted else pool.wait()
        outcomes = list(self.finish(interrupted).values())
        if outcomes:
            self.failed = report(outcomes, self.runs / "sweeps" / f"{self.folder.name}.csv")
            self.diverged = all(metric_to_minimise(outcome) == math.inf for outcome in outcomes)
            if self.diverged and not self.failed:
                log.info("every run diverged: none has a finite loss at its end")
            shutil.rmtree(self.folder / RECORDS, ignore_errors=True)
        else:
            self._leave_nothing()

    def _tell_until_stopped(self) -> None:
        while not self._stop.wait(LOOK_EVERY):
            self._tell()

    def _tell(self) -> None:
        """A line for each run that has ended in another process; this process has told of its own."""
        for record, outcome in self.outcomes().items():
            if record in self._told or not outcome.ended:
                continue
            self._told.add(record)
            if outcome.process != os.getpid():
                log.info("run %d of the sweep %s", int(record.stem) + 1, _in_words(outcome))

    def _leave_nothing(self) -> None:
        """Remove what Hydra wrote for a sweep without a job: its configuration did not compose."""
        (self.folder / "multirun.yaml").unlink(missing_ok=True)
        for folder in (self.folder, self.runs / "sweeps", self.runs):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _in_words(outcome: Outcome) -> str:
    if outcome.error:
        return f"failed: {outcome.error}"
    try:
        summary = read_summary(Path(outcome.folder))
    except UserError as error:
        return f"failed: {error}"
    loss = summary.get("test_loss")
    return f"done: test loss {loss:.4f}, {outcome.folder}" if loss is not None else f"done: {outcome.folder}"
