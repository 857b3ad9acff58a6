"""Shared by the subjects: timing of methods in turn in one process, common columns, ratios and exponents."""

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
"""Columns of times; ``seconds`` is the median."""

MACHINE = ("hardware", "threads", "torch")
"""Columns of the environment."""


@dataclass(frozen=True)
class Settings:
    """Settings of a measurement: ``repeats`` rounds on ``device``; ``smoke`` selects tiny cases, which take seconds;
    ``done`` names the rows of a subject with a ``KEY`` that are kept."""

    repeats: int
    smoke: bool
    device: torch.device
    done: frozenset[str] = frozenset()


@dataclass
class Timed(Generic[T]):
    """The seconds of one method per round, and the result of its last round."""

    seconds: list[float]
    last: T

    def columns(self) -> Row:
        """The cells of ``TIMES``."""
        spread = (statistics.median(self.seconds), min(self.seconds), max(self.seconds), len(self.seconds))
        return dict(zip(TIMES, spread, strict=True))


def take_turns(
    methods: Mapping[str, Callable[[], Callable[[], T]]], repeats: int, device: torch.device, enough: float = math.inf
) -> dict[str, Timed[T]]:
    """Time each method ``repeats`` times, one after the other within a round, so that a disturbance affects all.

    Args:
        methods: name -> a function that prepares, untimed, and returns the function to be timed.
        repeats: rounds.
        device: it is synchronised before the clock is read.
        enough: seconds of all methods together after which no further round begins.
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
    """The ``value`` of each method divided by that of the method ``against``, one row per case (its ``axes``)."""
    values = table.pivot_table(index=list(axes), columns="method", values=value, sort=False)
    return values.div(values[against], axis=0).reset_index()


def slopes(table: pd.DataFrame, axes: Sequence[str], value: str = "seconds") -> pd.DataFrame:
    """The exponent of each axis by method: the slope of log ``value`` over log axis, all other axes at the base.

    1 is linear, 0 no dependence. The base is the case that the axes share (:func:`base_of`); axes with fewer than two
    values there are left out.
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
    """The case that the axes share: the most frequent value of each over all cases, the first in case of a tie."""
    cases = table[list(axes)].drop_duplicates()
    return pd.Series({axis: statistics.mode(cases[axis]) for axis in axes})


def slug(hardware: str) -> str:
    """The name of a machine in a form for file names."""
    return re.sub(r"[^a-z0-9]+", "-", hardware.lower()).strip("-") or "unknown"
