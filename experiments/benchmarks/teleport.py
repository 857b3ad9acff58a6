"""A whole teleport at width 1024 by the variants of symmetry and of the null space, in units of one of them.

The unit is the null space at threshold 1 with steps of fixed length, each batch protecting itself. No method ends
early: there is no cap. On 200 samples each layer but the first has 824 null dimensions. 2000 samples leave none: the
null space at threshold 1 then ends after finding no null dimensions, as ``steps_taken`` shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from torch import Tensor, nn

from experiments.benchmarks.aims import Aim, ratio, rows
from experiments.benchmarks.common import Row, Settings, ratios
from experiments.benchmarks.events import AXES, COLUMNS, PUBLISHED, Case, Method, line, rows_of, warm_up
from experiments.run.methods import Teleporter
from teleport import NullSpace, Symmetry, TeleportReport

__all__ = ["AIMS", "COLUMNS", "line", "measure", "summary"]

REFERENCE = "nullspace"

ENOUGH = 140.0
"""Seconds of a case after which no further round begins."""

# Seconds are proportional to the batches: eight batches of 2000 would take minutes per round.
FULL = [Case(1024, 200), Case(1024, 2000, batches=2)]
SMOKE = [Case(32, 8, batches=2, steps=2), Case(32, 64, batches=2, steps=2)]


def _null_space(**settings: Any) -> Method:
    return lambda steps: NullSpace(**{"steps": steps, **PUBLISHED, **settings})


def _symmetry(variant: Any) -> Method:
    return lambda steps: Symmetry(variant, steps=steps, **PUBLISHED)


def _split(steps: int) -> Teleporter:
    """Every batch protects as many other samples: those of the first batch, with their pixels in reverse order."""
    method = _null_space()(steps)

    def teleport(model: nn.Module, batches: list[tuple[Tensor, Tensor]], loss_fn: Any) -> TeleportReport:
        inputs, targets = batches[0]
        return method(model, batches, loss_fn, constraint=[(inputs.flip(1), targets)])

    return teleport


METHODS: dict[str, Method] = {
    REFERENCE: _null_space(),
    "nullspace each": _null_space(forward="each"),
    "nullspace cap": _null_space(step="cap", lr=1e-3),  # the line search needs a step with a measurable gain
    "nullspace 0.999": _null_space(threshold=0.999),
    "nullspace split": _split,
    "symmetry 2022": _symmetry("2022"),
    "symmetry 2024": _symmetry("2024"),
    "symmetry corrected": _symmetry("corrected"),
}


def _times(method: str, limit: float) -> Aim:
    """The seconds of ``method`` in units of the null space's on 200 samples, if both take all steps."""

    def figure(table: pd.DataFrame) -> float:
        busy = table[table["steps_taken"] == table["batches"] * table["steps"]]
        return float(ratio(rows(busy, width=1024, samples=200), AXES, method, REFERENCE).max())

    return Aim(f"a whole teleport by {method} against the null space, width 1024, n 200", ">=", limit, figure)


AIMS = [_times("symmetry 2022", 20), _times("symmetry 2024", 25)]


def measure(settings: Settings) -> Iterator[Row]:
    """One row per case and method; within a case the methods take turns."""
    warm_up(METHODS, settings.device)
    for case in SMOKE if settings.smoke else FULL:
        yield from rows_of(case, METHODS, settings, ENOUGH)


def summary(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Ratios to the null space at threshold 1, and the steps taken."""
    steps = table.pivot_table(index=AXES, columns="method", values="steps_taken", sort=False).reset_index()
    return {f"seconds, in units of {REFERENCE}": ratios(table, AXES, REFERENCE), "steps taken": steps}
