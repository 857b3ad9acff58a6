"""An aim: a figure to reach, said beside the subject that measures it; ``aims_table.py`` has all of them in a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

MET, MISSED, NOT_MEASURED = "met", "missed", "not measured"


@dataclass(frozen=True)
class Aim:
    """A figure to reach.

    Attributes:
        what: the figure, in words.
        relation: whether the figure is to stay below the limit or to get above it.
        limit: in ``unit``.
        figure: the figure reached, from the subject's table; nan where the table does not have it.
        unit: of both.
    """

    what: str
    relation: Literal["<=", ">="]
    limit: float
    figure: Callable[[pd.DataFrame], float]
    unit: str = "times"

    def state(self, reached: float) -> str:
        """Whether a figure is what was aimed at."""
        if math.isnan(reached):
            return NOT_MEASURED
        return MET if (reached <= self.limit if self.relation == "<=" else reached >= self.limit) else MISSED


def rows(table: pd.DataFrame, **cells: Any) -> pd.DataFrame:
    """The rows of ``table`` that have these cells; the largest and the smallest value of none are nan."""
    chosen = pd.Series(True, index=table.index)
    for column, value in cells.items():
        chosen &= table[column] == value
    return table[chosen]


def ratio(
    table: pd.DataFrame, axes: Sequence[str], method: str, against: str, value: str = "seconds"
) -> pd.Series[float]:
    """The ``value`` of ``method`` in units of that of ``against``, by case (its ``axes``); nan where one is absent."""
    values = table.set_index(list(axes))
    return rows(values, method=method)[value].div(rows(values, method=against)[value])
