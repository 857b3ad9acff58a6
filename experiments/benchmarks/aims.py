"""Aims: limits for measured quantities, stated in the module of each subject; ``aims_table.py`` tabulates them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

MET, MISSED, NOT_MEASURED = "met", "missed", "not measured"


@dataclass(frozen=True)
class Aim:
    """A limit for a quantity that follows from a subject's table.

    Attributes:
        what: a description of the quantity.
        relation: whether the quantity must be at most or at least the limit.
        limit: in ``unit``.
        figure: the quantity from the subject's table; nan if the table lacks it.
        unit: of both.
    """

    what: str
    relation: Literal["<=", ">="]
    limit: float
    figure: Callable[[pd.DataFrame], float]
    unit: str = "times"

    def state(self, reached: float) -> str:
        """Whether the limit holds for a measured value."""
        if math.isnan(reached):
            return NOT_MEASURED
        return MET if (reached <= self.limit if self.relation == "<=" else reached >= self.limit) else MISSED


def rows(table: pd.DataFrame, **cells: Any) -> pd.DataFrame:
    """The rows of ``table`` with these cells; if there are none, their maximum and minimum are nan."""
    chosen = pd.Series(True, index=table.index)
    for column, value in cells.items():
        chosen &= table[column] == value
    return table[chosen]


def ratio(
    table: pd.DataFrame, axes: Sequence[str], method: str, against: str, value: str = "seconds"
) -> pd.Series[float]:
    """The ``value`` of ``method`` divided by that of ``against``, by case (its ``axes``); nan if one is missing."""
    values = table.set_index(list(axes))
    return rows(values, method=method)[value].div(rows(values, method=against)[value])
