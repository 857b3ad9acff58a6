"""The job function that Hydra calls with one composed configuration: once for a run, once per run of a sweep.

Under a launcher that runs jobs in other processes (joblib, submitit, ray), those call it by its name.
"""

from __future__ import annotations

import logging
import math
import os
import platform
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.command_line import results
from experiments.command_line.dispatch import make
from experiments.command_line.figure_runs import launcher_of
from experiments.command_line.launching import BASIC
from experiments.configuration.identity import label_by_choices
from experiments.configuration.sweeps import written_down
from experiments.configuration.tuned import use_tuned
from experiments.errors import UserError
from experiments.figures import provenance
from experiments.figures.runs import Launch
from experiments.run.sweep import Outcome, Sweep, attempt, log_to_console
from experiments.run.sweep_table import metric_to_minimise

log = logging.getLogger("experiments.command_line")

started = False
"""Whether Hydra has called a job of this command; what is raised before is about the command line."""

diverged = False
"""Whether the one run of this process has no finite loss at its end."""

incomplete = False
"""Whether runs are missing in a figure of this process."""

mistakes: list[UserError] = []
"""The mistake of the one run of this process; Hydra would add lines of its own to what is raised."""


def job(config: DictConfig) -> float | None:
    """Make the figure that ``config`` names, or else its run.

    Returns:
        The test loss at the end of the run, which a sweeper such as Optuna minimises: infinity if the run failed or
        diverged, ``None`` for a figure and for a run that is handed to a process of ``machine.jobs``.
    """
    global started, diverged
    started = True
    hydra = HydraConfig.get()
    if Path.cwd() != Path(hydra.runtime.cwd):  # a process of a launcher, on another machine perhaps
        _enter(hydra.runtime.cwd)
    label_by_choices(config, hydra.runtime.choices)
    if not logging.getLogger("experiments").handlers:  # in a process of a launcher
        log_to_console()
    if hydra.mode == RunMode.MULTIRUN:
        return _job_of_sweep(config)
    try:
        _use_tuned(config)
        folder = make(config, _launcher_of_figure(config))
        loss = metric_to_minimise(Outcome([], folder=str(folder)))
        _look_for_missing(config, folder)
    except UserError as error:
        mistakes.append(error)
        return None
    diverged = loss == math.inf
    return loss


def _look_for_missing(config: DictConfig, folder: Path) -> None:
    """Set ``incomplete`` if ``folder`` is that of a figure in which runs are missing."""
    global incomplete
    incomplete = incomplete or (config.figure is not None and provenance.missing(folder) > 0)


def _enter(folder: str) -> None:
    """Make relative paths those of the call.

    Raises:
        RuntimeError: this machine has no such folder.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        raise RuntimeError(
            f"the process of a launcher on {platform.node()} cannot read '{folder}', where the sweep was called; call "
            "it in a folder that all machines share"
        ) from error


def _use_tuned(config: DictConfig) -> None:
    """Take the settings of ``rates=tuned``; a figure does so for each of its runs."""
    hydra = HydraConfig.get()
    if config.figure is None:
        use_tuned(config, hydra.runtime.choices, hydra.overrides.task)


def _launcher_of_figure(config: DictConfig) -> Launch | None:
    """What makes the runs of the figure that this command is for, if it names a launcher."""
    if config.figure is None:
        return None
    overrides = HydraConfig.get().overrides
    return launcher_of([*overrides.hydra, *overrides.task], job)


def _job_of_sweep(config: DictConfig) -> float | None:
    """Make one run of a sweep, and leave its outcome in the sweep's folder. No error is raised: other runs go on."""
    hydra = HydraConfig.get()
    overrides, record = [written_down(each) for each in hydra.overrides.task], results.record_of(hydra)
    log.info("\nrun %d of the sweep: %s", hydra.job.num + 1, " ".join(overrides))
    try:
        _use_tuned(config)
    except UserError as error:
        return _failed(str(error), overrides, record)
    if config.figure is not None and hydra.launcher["_target_"] != BASIC["launcher"]:
        error = (
            "a launcher makes the runs of a figure, and no figures; name them all after scripts/reproduce.py, with the "
            "same hydra/launcher="
        )
        return _failed(error, overrides, record)
    if config.machine.jobs == 1 or config.figure is not None:  # a figure makes its own runs side by side
        outcome = attempt(make, config, overrides, record)
        if outcome.folder:
            _look_for_missing(config, Path(outcome.folder))
        return metric_to_minimise(outcome)
    for kind, own in BASIC.items():
        if hydra[kind]["_target_"] != own:
            error = (
                f"machine.jobs={config.machine.jobs} needs Hydra's own {kind}; leave it out, and set the number of "
                "processes of the launcher, as in hydra.launcher.n_jobs=2"
            )
            return _failed(error, overrides, record)
    results.pool = results.pool or Sweep(make)
    results.pool.add(overrides, config, record)
    return None


def _failed(error: str, overrides: list[str], record: Path) -> float | None:
    """Log and leave the outcome of a run of a sweep that is not begun."""
    log.info("failed: %s", error)
    outcome = Outcome(overrides, error=error)
    outcome.write(record)
    return metric_to_minimise(outcome)
