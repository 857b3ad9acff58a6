"""The cost of a teleport event as a share of an epoch of training.

Data, batches, rates and caps are those of ``run.py model=... data=... teleport=nullspace scale=paper``: the whole
training split, and the first event of the run, after the warm-up. ``event`` is that event, which ends at the cap.
``event, all steps`` takes every step of every batch: on MNIST 64 steps on 200 samples, a fifth of the samples of an
epoch. Each step costs more than a gradient evaluation, so that 5 % of an epoch cannot be reached unless small training
batches are slow. ``event, auto`` is the first event of ``teleport=auto``, its rollouts included. The seconds of an
``epoch`` are those of ``timed_steps`` optimizer steps in the suite's loop, by the clock of its curves, scaled to
``epoch_steps``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import torch

from experiments.benchmarks.aims import Aim, rows
from experiments.benchmarks.common import MACHINE, TIMES, Row, Settings, Timed, machine, take_turns
from experiments.benchmarks.events import RATE, work_of
from experiments.benchmarks.suite import Prepared, configuration
from experiments.configuration.teleport_config import NullSpaceConfig
from experiments.run.batches import steps_per_epoch

EPOCH, EVENT, ALL_STEPS, AUTO = "epoch", "event", "event, all steps", "event, auto"


@dataclasses.dataclass(frozen=True)
class Case:
    """A pair of model and data under ``conf/``, and the number of timed optimizer steps."""

    model: str
    data: str
    timed_steps: int = 200
    scale: str = "paper"


FULL = [
    Case("mlp", "mnist"),
    Case("cnn", "cifar10"),
    Case("mlp", "fashion_mnist"),
    Case("mlp", "digits", timed_steps=44),
    Case("transformer", "smnist"),
]
SMOKE = [Case("mlp_small", "digits", timed_steps=5, scale="smoke")]

EVENT_COLUMNS = ("batches", "samples", "steps", "cap")

COLUMNS = [
    *("method", "model", "data", *EVENT_COLUMNS, "batch_size", "timed_steps", "epoch_steps", "share"),
    *(*TIMES, "steps_taken", "null_dimensions", *MACHINE),
]
"""``share`` is the median of an event's seconds over that of an epoch's; the columns of events are empty for an epoch,
and ``cap`` is empty for an event without one."""


def _aim(model: str, data: str, method: str, limit: float) -> Aim:
    def figure(table: pd.DataFrame) -> float:
        return float(rows(table, model=model, data=data, method=method)["share"].max())

    return Aim(f"a null-space {method} against an epoch, {model} on {data}", "<=", limit, figure, "epochs")


AIMS = [
    _aim(model, data, method, limit)
    for model, data, limit in (("mlp", "mnist", 0.05), ("cnn", "cifar10", 0.1))
    for method in (EVENT, ALL_STEPS)
] + [_aim(case.model, case.data, AUTO, 0.05 if case.data in ("mnist", "cifar10") else 0.1) for case in FULL]


def measure(settings: Settings) -> Iterator[Row]:
    """One row per case and method; within a case the methods take turns.

    Raises:
        UserError: data are missing and cannot be downloaded.
    """
    for case in SMOKE if settings.smoke else FULL:
        yield from ({**row, **machine(settings.device)} for row in _rows(case, settings))
    torch.use_deterministic_algorithms(False)  # a run enables it


def line(row: Row) -> str:
    """The case, the method, its seconds, the steps taken and the share of an epoch."""
    steps = "" if row["method"] == EPOCH else f"{row['steps_taken']:>3} steps  {row['share']:6.1%} of an epoch"
    return f"{row['model']:<10} {row['data']:<8} {row['method']:<17} {row['seconds']:8.3f} s  {steps}"


def summary(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The share of an epoch, and the steps taken."""
    events = table.loc[table["method"] != EPOCH, ["model", "data", "method", "share", "steps_taken", "null_dimensions"]]
    return {"seconds of an event, in units of an epoch": events}


def _rows(case: Case, settings: Settings) -> Iterator[Row]:
    """The rows of one pair; the first is that of the epoch."""
    choices = [f"model={case.model}", f"data={case.data}", "teleport=nullspace", f"scale={case.scale}"]
    config = configuration([*choices, "data.train_samples=null", "data.test_samples=1"], settings.device)
    prepared = Prepared(config, settings.device)
    own = config.teleport
    assert isinstance(own, NullSpaceConfig)
    whole = dataclasses.replace(own, step="fixed", lr=RATE, cap=None)
    auto = configuration([*choices, "teleport=auto"], settings.device).teleport
    per_epoch = steps_per_epoch(prepared.task.train, config.training)
    epochs: list[float] = []  # seconds by the suite's clock

    def train() -> Callable[[], None]:
        steps = prepared.steps(case.timed_steps)
        return lambda: epochs.append(steps() * per_epoch / case.timed_steps)

    turns: dict[str, Callable[[], Callable[[], Any]]] = {
        EPOCH: train,
        EVENT: lambda: prepared.event(own),
        ALL_STEPS: lambda: prepared.event(whole),
        AUTO: lambda: prepared.event(auto),
    }
    take_turns(turns, 1, settings.device)  # a warm-up round
    epochs.clear()
    timed = take_turns(turns, settings.repeats, settings.device)
    timed[EPOCH] = Timed(epochs, None)
    unit = timed[EPOCH].columns()["seconds"]
    labels = {"model": case.model, "data": case.data, "batch_size": config.training.batch_size}
    labels |= {"timed_steps": case.timed_steps, "epoch_steps": per_epoch}
    for method, teleport in ((EPOCH, None), (EVENT, own), (ALL_STEPS, whole), (AUTO, auto)):
        times, report = timed[method].columns(), timed[method].last
        row = {"method": method, **labels, **times, "share": times["seconds"] / unit}
        row |= {column: getattr(teleport, column, None) for column in EVENT_COLUMNS}
        yield row | (work_of(report) if report else dict.fromkeys(("steps_taken", "null_dimensions")))
