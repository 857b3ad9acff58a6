"""A trial: recorded runs of one setting over the tuning seeds, and their loss at the common place."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.errors import UserError
from experiments.figures.provenance import hardware_of, note_of
from experiments.figures.runs import FigureRun, expand
from experiments.run.make_run import make_run
from experiments.run.runs import load_table, read_summary
from experiments.run.sweep import Sweep
from experiments.tuning.plan import SECONDS

COMMON = {"rates": "suite", "training.last_batch": "spread"}
"""The keys of all trials; the last batch is that of the figures that report the winners."""


@dataclass(frozen=True)
class Measured:
    """What a trial keeps of one run."""

    seed: int
    loss: float
    """The training loss at the common place, or that of the start if the run diverged."""
    train_loss: float
    test_loss: float
    seconds: float
    diverged: bool
    run: str
    hardware: str
    note: str


def make(pair: dict[str, Any], settings: dict[str, Any], seeds: list[int], overrides: list[str]) -> list[FigureRun]:
    """Make the runs of one setting, one per seed; those that exist are not made again.

    Args:
        pair: the choices of data, model, optimizer and teleport.
        settings: key -> value.
        seeds: of the runs.
        overrides: of the command line.

    Raises:
        UserError: a run fails for another reason than a divergence.
    """
    runs = expand([{**COMMON, **pair, **settings, "seed": list(seeds)}], overrides)
    sweep = Sweep(make_run)
    for run in runs:
        sweep.add([f"{key}={value}" for key, value in run.labels.items()], run.config)
    for run, outcome in zip(runs, sweep.wait(), strict=True):
        if not outcome.folder:
            raise UserError(f"a run of a trial failed, so tuning stops: {outcome.error}")
        run.folder = Path(outcome.folder)
    return runs


def measure(run: FigureRun, at: str) -> Measured:
    """The numbers of a finished run.

    Args:
        run: the run.
        at: where its loss counts. ``seconds``: when training and teleports have taken as long as all of the run's
            steps do without its teleports, interpolated in the logarithm between evaluations. Both times are of the
            same run, so that other processes, which lengthen both, change little. ``end``: at the end.
    """
    folder = run.folder
    if folder is None:
        raise ValueError("the run is not made")
    summary, curve = read_summary(folder), load_table(folder, "curve")
    losses = curve["train_loss"].to_numpy(float)
    diverged = bool(summary["diverged"])
    loss = losses[0] if diverged else losses[-1]
    if not diverged and at == SECONDS:
        loss = math.exp(np.interp(summary["training_seconds"], curve["seconds"].to_numpy(float), np.log(losses)))
    return Measured(
        seed=int(run.config.seed),
        loss=float(loss),
        train_loss=float(losses[-1]),
        test_loss=float(curve["test_loss"].iloc[-1]),
        seconds=float(summary["seconds"]),
        diverged=diverged,
        run=folder.name,
        hardware=hardware_of(folder),
        note=note_of(folder),
    )


def score(measured: list[Measured]) -> float:
    """The geometric mean of the losses, which is what a trial minimises."""
    return float(np.exp(np.mean(np.log([each.loss for each in measured]))))


def kept(measured: list[Measured]) -> list[dict[str, Any]]:
    """What a trial keeps, as plain values."""
    return [asdict(each) for each in measured]
