"""Lines of a picture that a column of its table tells apart: their looks, and means over seeds with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.errors import UserError
from experiments.figures.intervals import mean_interval


@dataclass(frozen=True)
class Arms:
    """What the lines of a picture are.

    Attributes:
        column: of the table, that tells them apart.
        lines: its values -> words of the legend, color and style.
        words: its values -> words below dots, if the picture has some.
    """

    column: str
    lines: Mapping[str, tuple[str, str, str]]
    words: Mapping[str, str] = field(default_factory=dict)

    def check(self, drawing: str, rows: pd.DataFrame) -> None:
        """Refuse rows of another line.

        Raises:
            UserError: the sentence names it, and those that the drawing shows.
        """
        if strange := set(rows[self.column]) - set(self.lines):
            shown = ", ".join(self.lines)
            raise UserError(f"the drawing '{drawing}' shows {shown}, but the table has '{min(strange)}'")

    def known(self, rows: pd.DataFrame) -> list[str]:
        """The values that the rows have, in order."""
        return [name for name in self.lines if name in set(rows[self.column])]

    def handles(self, names: Iterable[str]) -> list[Line2D]:
        """Entries of the legend."""
        known = [self.lines[name] for name in names]
        return [Line2D([], [], color=color, linestyle=line, label=words) for words, color, line in known]

    def curves(
        self, axes: Axes, rows: pd.DataFrame, x: str, y: str, *, shade: float = 0.15, above_zero: bool = False
    ) -> None:
        """The mean of ``y`` at each ``x``, and its interval as a shade.

        Args:
            axes: to draw on.
            rows: of the table.
            x, y: columns.
            shade: opacity.
            above_zero: leave out a shade that reaches 0, as on a logarithmic axis.
        """
        for name in self.known(rows):
            _, color, line = self.lines[name]
            found = rows[rows[self.column] == name].groupby(x)[y].apply(rounded_interval)
            mean, low, high = np.array(found.to_list()).T
            axes.plot(found.index, mean, color=color, linestyle=line)
            if np.isfinite(low).all() and not (above_zero and (low <= 0).any()):
                axes.fill_between(found.index, low, high, color=color, alpha=shade, linewidth=0)

    def dot(self, axes: Axes, name: str, place: float, values: Iterable[float], **marker: Any) -> None:
        """The mean of values with its interval as a bar, in the color of a line."""
        mean, low, high = rounded_interval(values)
        color = self.lines[name][1]
        if np.isfinite(low):
            axes.plot([place] * 2, [low, high], color=color, linewidth=0.9)
        axes.plot(place, mean, "o", color=color, markersize=3.2, **marker)


def rounded(value: float) -> float:
    """Without the last bits, which differ between processors."""
    return float(f"{value:.4g}")


def rounded_interval(values: Iterable[float]) -> tuple[float, ...]:
    """:func:`mean_interval` without the last bits."""
    return tuple(map(rounded, mean_interval(values)))
