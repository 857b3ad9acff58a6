"""What the subjects share: methods that take turns in one process, the columns of a table, and what follows from it."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
import torch

from experiments.run.clock import Clock
from experiments.run.environment import environment

T = TypeVar("T")
Row = dict[str, Any]

TIMES = ("seconds", "fastest", "slowest", "repeats")
"""Columns of what was measured; ``seconds`` is the median."""

MACHINE = ("hardware", "threads", "torch")
"""Columns of what it was measured with."""


@dataclass(frozen=True)
class Settings:
    """How a subject measures: ``repeats`` rounds on ``device``; ``smoke`` is tiny cases, in seconds."""

    repeats: int
    smoke: bool
    device: torch.device


@dataclass
class Timed(Generic[T]):
    """The seconds of one method, a round each, and what it returned in the last."""

    seconds: list[float]
    last: T

    def columns(self) -> Row:
        """The cells of ``TIMES``."""
        spread = (statistics.median(self.seconds), min(self.seconds), max(self.seconds), len(self.seconds))
        return dict(zip(TIMES, spread, strict=True))


def take_turns(
    methods: Mapping[str, Callable[[], Callable[[], T]]], repeats: int, device: torch.device, enough: float = math.inf
) -> dict[str, Timed[T]]:
    """Time each method ``repeats`` times, one after the other within a round, so that a disturbance falls on all.

    Args:
        methods: name -> a function that prepares, outside of the clock, and returns what is timed.
        repeats: rounds.
        device: whose queue is waited for.
        enough: seconds, of all methods together, after which no further round begins.
    """
    timed: dict[str, Timed[T]] = {}
    clock = Clock(device)
    for _ in range(repeats):
        if sum(sum(each.seconds) for each in timed.values()) >= enough:
            break
        for name, prepare in methods.items():
            work = prepare()
            clock.start()
            result = work()
            seconds = clock.stop()
            earlier = timed[name].seconds if name in timed else []
            timed[name] = Timed([*earlier, seconds], result)
    return timed


def machine(device: torch.device) -> Row:
    """The cells of ``MACHINE``."""
    known = environment(device)
    return dict(zip(MACHINE, (known["device_name"], known["threads"], torch.__version__), strict=True))


def ratios(table: pd.DataFrame, axes: Sequence[str], against: str, value: str = "seconds") -> pd.DataFrame:
    """How many times the ``value`` of the method ``against`` each method takes, a row a case (its ``axes``)."""
    values = table.pivot_table(index=list(axes), columns="method", values=value, sort=False)
    return values.div(values[against], axis=0).reset_index()


def slopes(table: pd.DataFrame, axes: Sequence[str], value: str = "seconds") -> pd.DataFrame:
    """The exponent of each axis by method: the slope of log ``value`` over log axis, all else as in the base.

    1 is linear, 0 no dependence. The base is where the axes cross (:func:`base_of`); axes with fewer than two values
    there are left out.
    """
    base, rows = base_of(table, axes), []
    for axis in axes:
        others = base.drop(axis)
        along = table[(table[others.index.tolist()] == others).all(axis=1)]
        for method, own in along.groupby("method", sort=False):
            if own[axis].nunique() > 1:
                slope = np.polyfit(np.log(own[axis]), np.log(own[value]), 1)[0]
                rows.append({"axis": axis, "method": method, "values": own[axis].nunique(), "slope": slope})
    return pd.DataFrame(rows, columns=["axis", "method", "values", "slope"])


def base_of(table: pd.DataFrame, axes: Sequence[str]) -> pd.Series:
    """The case that the axes cross in: each one's most frequent value over all cases, the first of equals."""
    cases = table[list(axes)].drop_duplicates()
    return pd.Series({axis: statistics.mode(cases[axis]) for axis in axes})


def slug(hardware: str) -> str:
    """A machine's name as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", hardware.lower()).strip("-") or "unknown"
