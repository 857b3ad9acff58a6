"""The gradient's magnitude against the range of the change of basis."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.figures import style

DOT = {"linestyle": "", "marker": "o", "markersize": 1.8, "markeredgewidth": 0, "color": style.PALETTE[5]}
CHECK = {
    "linestyle": "",
    "marker": "o",
    "markersize": 4,
    "markerfacecolor": "none",
    "markeredgewidth": 0.8,
    "color": style.PALETTE[1],
}
MEAN = {"color": style.PALETTE[0], "linewidth": 1.2}
EXPECTED = {"color": style.GRAY, "linestyle": ":", "linewidth": 1.1}

PANELS = {
    "difference": "$|\\,|dW|/|W| - |dV|/|V|\\,|$",
    "gain": "$|dV|\\,/\\,|dW|$",
    "normalised_gain": "$(|dV|/|V|)\\,/\\,(|dW|/|W|)$",
}
"""Measured column -> its name on an axis, from the top down."""


def draw_magnitude(table: pd.DataFrame, title: str) -> Figure:
    """A column a network. The difference of the normalised magnitudes; what they and the plain ones grew by.

    Args:
        table: rows of ``measure/magnitude.py``.
        title: of the whole picture.
    """
    figure = style.page(title, 5.3)
    models = list(table["model"].unique())
    axes = figure.subplots(len(PANELS), len(models), squeeze=False, sharex=True)
    for model, column in zip(models, axes.T, strict=True):
        top, middle, _ = column
        rows = table[table["model"] == model]
        top.set_title(style.label(style.MODELS, model))
        if (rows["reason"] != "").any():
            style.no_result(top, rows)
            continue
        for panel, measured in zip(column, PANELS, strict=True):
            _panel(panel, rows, measured)
        ranges = np.linspace(0, rows["range"].max(), 100)
        middle.plot(ranges, np.sqrt((1 + ranges**2 / 3) / (1 - ranges**2)), **EXPECTED)
        _plain_log(middle)
    for panel in axes[-1]:
        panel.set_xlabel("range")
    for panel, name in zip(axes[:, 0], PANELS.values(), strict=True):
        panel.set_ylabel(name)
    handles = [
        Line2D([], [], label="a teleport", **DOT),
        Line2D([], [], label="mean", **MEAN),
        Line2D([], [], label="backpropagated anew", **CHECK),
        Line2D([], [], label="expected between hidden layers", **EXPECTED),
    ]
    style.legend(figure, handles)
    data = ", ".join(style.label(style.DATA, name) for name in table["data"].unique())
    style.footnote(
        figure, table, f"{data}, one batch, at initialisation; gradients by Theorem 5.1 where not said otherwise"
    )
    return figure


def _plain_log(axes: Axes) -> None:
    """A log axis with plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _panel(axes: Axes, rows: pd.DataFrame, column: str) -> None:
    theorem, again = rows[rows["source"] == "theorem"], rows[rows["source"] == "backpropagation"]
    mean = theorem.groupby("range")[column].mean()
    axes.plot(theorem["range"], theorem[column], **DOT)
    axes.plot(mean.index, mean, **MEAN)
    axes.plot(again["range"], again[column], **CHECK)
