"""Seconds of a teleport by null space and by symmetry, over width, samples, layers, batches and steps.

Null-space teleport is measured twice. At threshold 1 it ends at once if the samples span every layer's inputs, so that
its time is not that of steps, and it skips the first layer. ``nullspace 0.999`` decomposes every layer and leaves each
some directions, so that all steps are taken. The table has the steps and the null dimensions of both. Slow cases have
fewer rounds (``repeats``).
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from experiments.benchmarks.aims import Aim
from experiments.benchmarks.common import Row, Settings, ratios, slopes
from experiments.benchmarks.events import AXES, COLUMNS, PUBLISHED, Case, Method, line, rows_of, warm_up
from teleport import NullSpace, Symmetry

__all__ = ["AIMS", "AXES", "COLUMNS", "exponents", "line", "measure", "summary"]

REFERENCE = "nullspace 0.999"
"""The unit of the ratios: a method that takes all steps."""

ENOUGH = 20.0
"""Seconds of a case after which no further round begins: symmetry on 1000 samples takes minutes per round."""

FULL = [
    *(Case(width, samples) for width in (128, 512, 1024) for samples in (100, 200, 1000)),
    Case(256),  # further cases in which the null space at threshold 1 has null dimensions
    *(Case(samples=samples) for samples in (50, 400)),
    *(Case(layers=layers) for layers in (1, 4)),
    *(Case(batches=batches) for batches in (1, 2, 4)),
    *(Case(steps=steps) for steps in (1, 2, 4)),
]
SMOKE = [Case(16, 20, batches=1, steps=1), Case(32, 20, batches=1, steps=1), Case(16, 20, batches=1, steps=2)]
AIMS: list[Aim] = []  # the aims of whole teleports are in the subject ``teleport``

METHODS: dict[str, Method] = {
    "nullspace": lambda steps: NullSpace(steps=steps, **PUBLISHED),
    REFERENCE: lambda steps: NullSpace(steps=steps, threshold=0.999, **PUBLISHED),
    "symmetry 2022": lambda steps: Symmetry("2022", steps=steps, **PUBLISHED),
    "symmetry 2024": lambda steps: Symmetry("2024", steps=steps, **PUBLISHED),
    "symmetry corrected": lambda steps: Symmetry("corrected", steps=steps, **PUBLISHED),
}


def measure(settings: Settings) -> Iterator[Row]:
    """One row per case and method; within a case the methods take turns."""
    warm_up(METHODS, settings.device)
    for case in SMOKE if settings.smoke else FULL:
        yield from rows_of(case, METHODS, settings, ENOUGH)


def summary(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Ratios to the null space that takes all steps, and exponents of the seconds."""
    return {
        f"seconds, in units of {REFERENCE}": ratios(table, AXES, REFERENCE),
        "exponents (1 is linear), where steps were taken": exponents(table),
    }


def exponents(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`slopes` over the cases in which a method took steps; the time of other cases is not that of steps."""
    return slopes(table[table["steps_taken"] > 0], AXES)
