"""The runs of a figure: expanded from its grids, labelled, and made where they are missing."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from experiments.errors import UserError

log = logging.getLogger(__name__)

GROUPS = ("data", "model", "optimizer", "teleport")


@dataclass
class FigureRun:
    """One run of a figure. ``labels`` tell it from the others: its choices of each group, its seed, what is swept."""

    labels: dict[str, Any]
    config: DictConfig
    folder: Path | None = None
    reason: str = ""  # why it has no result; empty where it has one


def override_key(override: str) -> str:
    """What a Hydra override is about: ``"+model.widths=[3]"`` -> ``"model.widths"``."""
    return override.split("=", 1)[0].lstrip("+~").split("@", 1)[0]


def overrides_for_runs(overrides: Iterable[str]) -> list[str]:
    """The command line's overrides that its runs are to have, too: all but those about the figure itself."""
    return [override for override in overrides if override_key(override).split(".")[0] != "figure"]


def expand(grids: Iterable[dict[str, Any]], overrides: Iterable[str]) -> list[FigureRun]:
    """The runs of ``grids``, each composed with ``overrides``, in order, without doubles.

    A grid maps overrides to a value, or to a list of values to sweep; the last key varies fastest. An override on the
    command line takes the place of the same key in a grid, so that ``seed=0`` makes a figure of one seed. Hydra must
    have been initialised with the configuration directory.

    Raises:
        UserError: a grid that does not compose.
    """
    overrides = list(overrides)
    given = {override_key(override) for override in overrides}
    runs: dict[str, FigureRun] = {}
    for grid in grids:
        swept = {key: value if isinstance(value, list) else [value] for key, value in grid.items() if key not in given}
        for values in itertools.product(*swept.values()):
            point = [f"{key}={_literal(value)}" for key, value in zip(swept, values, strict=True)]
            run = _compose(point + overrides, keys=list(grid))
            runs.setdefault(OmegaConf.to_yaml(run.config), run)
    return list(runs.values())


def _literal(value: Any) -> str:
    """``value`` in the grammar of Hydra's overrides."""
    if isinstance(value, list):
        return "[" + ",".join(_literal(entry) for entry in value) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _compose(overrides: list[str], keys: list[str]) -> FigureRun:
    """One run, labelled by its choices of the groups, its seed, and whatever else of ``keys`` a grid sweeps."""
    try:
        config = compose("config", overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        first_line = str(error).strip().splitlines()[0]
        raise UserError(f"the figure's run '{' '.join(overrides)}' does not compose: {first_line}") from error
    choices = config.hydra.runtime.choices
    labels: dict[str, Any] = {group: choices[group] for group in GROUPS} | {"seed": config.seed}
    for key in keys:
        if key not in labels:
            value = choices[key] if key in choices else OmegaConf.select(config, key)
            labels[key] = str(value) if isinstance(value, ListConfig | DictConfig) else value
    with open_dict(config):
        del config["hydra"]
    return FigureRun(labels, config)


def execute(runs: list[FigureRun], jobs: int) -> None:
    """Make the ``runs`` that are missing, ``jobs`` at a time, and set each one's folder or why it has none."""
    from experiments.runs import find

    missing = [run for run in runs if (folder := find(run.config)) is None or _keep(run, folder)]
    if missing:
        log.info("%d of %d runs are there, %d to make", len(runs) - len(missing), len(runs), len(missing))
    outcomes = _in_processes(missing, jobs) if jobs > 1 and len(missing) > 1 else _one_by_one(missing)
    for done, (run, folder, reason) in enumerate(outcomes, start=1):
        run.folder, run.reason = folder, reason
        name = " ".join(f"{key}={value}" for key, value in run.labels.items())
        log.info("[%d/%d] %s: %s", done, len(missing), name, reason or folder)


def _keep(run: FigureRun, folder: Path) -> bool:
    """Note the folder of a run that is there already; says ``False``, not missing."""
    run.folder = folder
    return False


Outcome = tuple[FigureRun, Path | None, str]


def _one_by_one(runs: list[FigureRun]) -> Iterator[Outcome]:
    for run in runs:
        yield (run, *_attempt(run.config))


def _in_processes(runs: list[FigureRun], jobs: int) -> Iterator[Outcome]:
    """Each process has its share of the cores, unless ``machine.threads`` says otherwise."""
    share = max(1, (os.cpu_count() or 1) // jobs)
    for run in runs:
        if run.config.machine.threads is None:
            run.config.machine.threads = share
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(_attempt, run.config): run for run in runs}
        for future in as_completed(futures):
            try:
                folder, reason = future.result()
            except Exception as error:  # the process itself died
                folder, reason = None, f"{type(error).__name__}: {error}"
            yield futures[future], folder, reason


def _attempt(config: DictConfig) -> tuple[Path | None, str]:
    """Make one run; a run that fails is told, and does not stop the others."""
    from experiments.runner import run

    try:
        return run(config), ""
    except Exception as error:
        return None, reason_of(error)


def reason_of(error: Exception) -> str:
    """Why a cell of a figure is empty, on one line; what is no user's mistake goes to the log with its traceback."""
    if isinstance(error, UserError):
        return str(error)
    log.error("a cell of the figure failed", exc_info=error)
    return " ".join(f"{type(error).__name__}: {error}".split())
