"""The runs of a figure: expanded from its grids, labelled, and made if they are missing."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.configuration.identity import label_by_choices
from experiments.configuration.tuned import use_tuned
from experiments.configuration.validate import resolve
from experiments.errors import UserError
from experiments.figures.composition import Composer
from experiments.figures.progress import Progress
from experiments.run.make_run import make_run
from experiments.run.runs import complete, folder_of
from experiments.run.sweep import Outcome, Sweep, attempt
from experiments.run.sweep_table import report

log = logging.getLogger(__name__)

GROUPS = ("data", "model", "optimizer", "teleport")


Launch = Callable[[Sequence[list[str]]], list[Outcome]]
"""Makes runs elsewhere: the overrides of each -> their outcomes, in the same order."""


@dataclass
class FigureRun:
    """One run of a figure. ``labels`` identify it: its choice of each group, its seed, and the swept keys."""

    labels: dict[str, Any]
    config: DictConfig
    folder: Path | None = None
    reason: str = ""  # why it has no result; empty if it has one
    siblings: Sequence[FigureRun] = field(default=(), repr=False, compare=False)  # all runs of the figure
    overrides: list[str] = field(default_factory=list)  # which compose it


def partner(run: FigureRun, **changed: Any) -> FigureRun:
    """The finished run of the same figure with the labels of ``run`` except for ``changed``.

    A label that only one of the two runs has is not compared, as a run without teleports has no labels of teleports.

    Raises:
        UserError: the figure has no such run, or it has no result.
    """
    wanted = {**run.labels, **changed}
    words = " ".join(f"{key}={value}" for key, value in changed.items())
    for other in run.siblings:
        if all(other.labels.get(key, value) == value for key, value in wanted.items()):
            if other.folder is None:
                raise UserError(f"the run with {words} that it is compared with has no result: {other.reason}")
            return other
    raise UserError(f"the figure has no run with {words} to compare it with; add one to its runs")


def override_key(override: str) -> str:
    """The key of a Hydra override: ``"+model.widths=[3]"`` -> ``"model.widths"``."""
    return override.split("=", 1)[0].lstrip("+~").split("@", 1)[0]


def expand(grids: Iterable[dict[str, Any]], overrides: Iterable[str]) -> list[FigureRun]:
    """The runs of ``grids``, each composed with the command line's ``overrides``, in order and without duplicates.

    A grid maps overrides to a value, or to a list of values to sweep; the last key varies fastest. An override on the
    command line replaces the same key in a grid, so that ``seed=0`` makes a figure of one seed. Overrides of the figure
    itself do not apply to its runs.

    Raises:
        UserError: a grid does not compose.
    """
    overrides = [override for override in overrides if override_key(override).split(".")[0] != "figure"]
    given = {override_key(override) for override in overrides}
    runs: dict[str, FigureRun] = {}
    composer = Composer()
    for grid in grids:
        swept = {key: value if isinstance(value, list) else [value] for key, value in grid.items() if key not in given}
        for values in itertools.product(*swept.values()):
            point = [f"{key}={_literal(value)}" for key, value in zip(swept, values, strict=True)]
            run = _compose_run(composer, point + overrides, keys=list(grid))
            runs.setdefault(repr(OmegaConf.to_container(run.config)), run)
    found = list(runs.values())
    for run in found:
        run.siblings = found
    return found


def execute(runs: list[FigureRun], launch: Launch | None = None) -> list[FigureRun]:
    """Make the missing ``runs`` as a sweep, and set the ``folder`` of each, or the ``reason`` for its failure.

    Args:
        runs: of the figure; one with a reason is left out.
        launch: makes those that are missing; ``None`` for this process and those of ``machine.jobs``.

    Returns:
        the runs that failed.
    """
    runs = [run for run in runs if not run.reason]
    progress = _progress(runs)
    if any(progress.there):
        log.info("%d of %d runs are there already", sum(progress.there), len(runs))
    outcomes = _made_here(runs, progress) if launch is None else _launched(runs, progress.there, launch)
    if runs:
        name = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{os.getpid()}.csv"
        report(outcomes, Path(runs[0].config.machine.runs) / "sweeps" / name)
    for run, outcome in zip(runs, outcomes, strict=True):
        run.folder = Path(outcome.folder) if outcome.folder else None
        run.reason = " ".join(outcome.error.split())
    return [run for run in runs if run.folder is None]


def missing_in_words(failed: Sequence[FigureRun], count: int, most: int = 10) -> str:
    """Which of the ``count`` runs of a figure are missing in it, why, and what makes them."""
    lines = [f"{len(failed)} of {count} runs are missing in the figure:"]
    lines += [f"  {' '.join(_words(run))}: {run.reason}" for run in failed[:most]]
    if len(failed) > most:
        lines.append(f"  and {len(failed) - most} more, which provenance.json beside the figure names")
    return "\n".join([*lines, "the same command tries these again, and makes no other run anew"])


def _made_here(runs: list[FigureRun], progress: Progress) -> list[Outcome]:
    """The outcomes of ``runs``, made one after the other or in processes of ``machine.jobs``."""
    sweep = Sweep(make_run)
    for number, run in enumerate(runs):
        overrides = _words(run)
        if progress.jobs == 1 and not progress.there[number]:
            log.info("\n%s: %s", progress.begin(number), " ".join(overrides))
        sweep.add(overrides, run.config).add_done_callback(partial(_tell, progress, number))
    return sweep.wait()


def _launched(runs: list[FigureRun], there: Sequence[bool], launch: Launch) -> list[Outcome]:
    """The outcomes of ``runs``; those that are not ``there`` by ``launch``."""
    missing = [run.overrides for run, done in zip(runs, there, strict=True) if not done]
    made = iter(launch(missing) if missing else [])
    outcomes = [
        attempt(make_run, run.config, []) if done else next(made) for run, done in zip(runs, there, strict=True)
    ]
    for run, outcome in zip(runs, outcomes, strict=True):
        outcome.overrides = _words(run)  # which are those of a table without a launcher
    return outcomes


def _words(run: FigureRun) -> list[str]:
    return [f"{key}={value}" for key, value in run.labels.items()]


def _progress(runs: list[FigureRun]) -> Progress:
    there = []
    for run in runs:
        try:
            there.append(complete(folder_of(resolve(run.config))))
        except Exception:  # the run is not there; why it cannot be made is said where it is made
            there.append(False)
    keys = [tuple(run.labels[group] for group in ("data", "model", "teleport", "optimizer")) for run in runs]
    return Progress(keys, there, runs[0].config.machine.jobs if runs else 1)


def _tell(progress: Progress, number: int, outcome: Future[Outcome]) -> None:
    """Log how far the runs are, when one has ended."""
    if outcome.cancelled() or outcome.exception() is not None:
        return
    told = progress.end(number, outcome.result().seconds)
    if told and progress.jobs > 1:  # else it is said before the next run
        log.info("%s", told)


def reason_of(error: BaseException) -> str:
    """The reason for an empty cell of a figure, on one line."""
    words = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return " ".join(words.split())


def _literal(value: Any) -> str:
    """``value`` in the grammar of Hydra's overrides."""
    if isinstance(value, list):
        return "[" + ",".join(_literal(entry) for entry in value) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _compose_run(composer: Composer, overrides: list[str], keys: list[str]) -> FigureRun:
    """One run, labelled by its choices of the groups, its seed, and the other ``keys`` of its grid."""
    config, choices = composer(overrides)
    labels: dict[str, Any] = {group: choices[group] for group in GROUPS} | {"seed": config.seed}
    for key in keys:
        if key not in labels:
            value = choices[key] if key in choices else OmegaConf.select(config, key)
            labels[key] = str(value) if OmegaConf.is_config(value) else value
    label_by_choices(config, choices)
    run = FigureRun(labels, config, overrides=overrides)
    try:
        use_tuned(config, choices, overrides)
    except UserError as error:
        run.reason = reason_of(error)
    return run
