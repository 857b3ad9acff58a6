"""Seconds of a null-space teleport by the positions of a sample: the pixels of an image or the tokens of a series.

The weights and the number of samples are fixed. At threshold 1 layers lose their null dimensions as positions grow,
except for the head, which has one input vector per sample. ``nullspace 0.999`` leaves each layer some. For comparison,
as many gradient evaluations as a teleport has steps are timed: forward and backward pass over all parameters.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import torch

from experiments.benchmarks.aims import Aim
from experiments.benchmarks.common import MACHINE, TIMES, Row, Settings, machine, ratios, slopes, take_turns
from experiments.benchmarks.events import PUBLISHED, work_of
from experiments.benchmarks.nullspace_step import Case, batch_of, loss_of, transformer_of
from experiments.configuration.model_config import CNNConfig
from experiments.models import cnn
from experiments.tasks import Spec
from teleport import NullSpace, TeleportReport

GRADIENT = "gradients"

THRESHOLDS = {"nullspace": 1.0, "nullspace 0.999": 0.999}

STEPS = 8

ENOUGH = 10.0
"""Seconds of a case after which no further round begins."""

COLUMNS = ["method", "model", "samples", "positions", *TIMES, "steps_taken", "null_dimensions", *MACHINE]
"""``seconds`` are those of a whole event of one batch, or of ``STEPS`` gradient evaluations."""


def _cnn(side: int, channels: tuple[int, ...] = (32, 64, 128)) -> Case:
    spec, name = Spec("image", (3, side, side), 10), "cnn " + "-".join(map(str, channels))
    return Case(name, 8, lambda: cnn.build(CNNConfig(name="cnn", channels=list(channels)), spec), spec)


def _transformer(length: int) -> Case:
    spec = Spec("series", (length, 32), 32)
    return Case("transformer 4 x 256", 4, lambda: transformer_of(4, 64, 4, spec), spec)


FULL = [*map(_cnn, (8, 16, 32, 64)), *map(_transformer, (16, 32, 64, 128))]
SMOKE = [_cnn(side, (4, 8)) for side in (4, 8)]
AIMS: list[Aim] = []


def measure(settings: Settings) -> Iterator[Row]:
    """One row per case and method; within a case the methods take turns."""
    deque(_rows(SMOKE[0], dataclasses.replace(settings, repeats=1)), maxlen=0)  # a warm-up
    for case in SMOKE if settings.smoke else FULL:
        yield from ({**row, **machine(settings.device)} for row in _rows(case, settings))


def line(row: Row) -> str:
    """The case, the method, its seconds and the steps taken."""
    seconds = f"{row['seconds']:9.4f} s  {row['steps_taken']:>3} steps, {row['null_dimensions']} null dimensions"
    return f"{row['model']:<20} positions {row['positions']:>5}  {row['method']:<16} {seconds}"


def summary(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A teleport in units of gradient evaluations, and exponents of the seconds over the cases with steps."""
    busy = table[(table["steps_taken"] > 0) | (table["method"] == GRADIENT)]
    fits = [slopes(own, ["positions"]).assign(model=model) for model, own in busy.groupby("model", sort=False)]
    return {
        f"a teleport of {STEPS} steps, in units of as many gradient evaluations": ratios(
            table, ["model", "samples", "positions"], GRADIENT
        ),
        "exponents (1 is linear)": pd.concat(fits, ignore_index=True),
    }


def _rows(case: Case, settings: Settings) -> Iterator[Row]:
    """The seconds of a gradient evaluation and of each teleport, on one model and batch."""
    torch.manual_seed(0)
    model = case.build().to(settings.device).eval()
    batch, parameters = batch_of(case, settings.device), list(model.parameters())

    def gradients() -> None:
        for _ in range(STEPS):
            torch.autograd.grad(loss_of(model, batch), parameters)

    def ready(threshold: float) -> Callable[[], TeleportReport]:
        method = NullSpace(steps=STEPS, threshold=threshold, **PUBLISHED)
        own = copy.deepcopy(model)
        return lambda: method(own, [batch], loss_of)

    turns: dict[str, Callable[[], Callable[[], Any]]] = {GRADIENT: lambda: gradients}
    turns |= {name: lambda threshold=threshold: ready(threshold) for name, threshold in THRESHOLDS.items()}
    kind, shape = case.spec.kind, case.spec.input_shape
    sizes = {"samples": case.samples, "positions": math.prod(shape[1:]) if kind == "image" else shape[0]}
    for name, timed in take_turns(turns, settings.repeats, settings.device, ENOUGH).items():
        work = {"steps_taken": 0, "null_dimensions": 0} if name == GRADIENT else work_of(timed.last)
        yield {"method": name, "model": case.model, **sizes, **timed.columns(), **work}
