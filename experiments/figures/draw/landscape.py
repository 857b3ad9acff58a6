"""A loss surface with teleports on it: within the landscape, and in the other one."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.figures import style

PANELS = {
    "original": "within the landscape: tau > 0, relu(x) stays",
    "other": "across landscapes: tau < 0, relu(x) becomes min(x, 0)",
}
START = {"marker": "*", "markersize": 11, "linestyle": "", "color": style.PALETTE[1], "markeredgecolor": "white"}
TELEPORT = {  # rings, through which W is seen
    "marker": "o",
    "markersize": 7,
    "markerfacecolor": "none",
    "markeredgewidth": 1.6,
    "linestyle": "",
    "color": style.PALETTE[5],
}
LEVEL = {"colors": [style.PALETTE[1]], "linewidths": 1.2, "linestyles": "--"}


def draw_landscape(table: pd.DataFrame, title: str) -> Figure:
    """A panel a landscape, with the level curve of the loss that all points have.

    Args:
        table: rows of ``measure/landscape.py``.
        title: of the whole picture.
    """
    figure = style.page(title, 3.9)
    start = table[table["what"] == "start"].iloc[0]
    surfaces = table[table["what"] == "surface"]
    low, high = surfaces["loss"].min(), surfaces["loss"].max()
    levels = low + (high - low) * np.linspace(0, 1, 16) ** 2  # closer where the surface is flat
    for axes, (landscape, name) in zip(figure.subplots(1, 2, sharey=True), PANELS.items(), strict=True):
        _surface(axes, surfaces[surfaces["landscape"] == landscape], levels, start["loss"])
        points = table[(table["what"] == "teleport") & (table["landscape"] == landscape)]
        if landscape == "original":
            axes.plot(start["first"], start["second"], **START)
        axes.plot(points["first"], points["second"], **TELEPORT)
        axes.set_title(name)
        axes.set_xlabel("first weight")
        axes.set_aspect("equal")
        axes.grid(False)
    figure.axes[0].set_ylabel("second weight")
    handles = [
        Line2D([], [], label="W", **START),
        Line2D([], [], label="teleports of W", **TELEPORT),
        Line2D([], [], color=LEVEL["colors"][0], linestyle="--", label="loss of W"),
    ]
    style.legend(figure, handles)
    spread = (table.loc[table["what"] == "teleport", "loss"] - start["loss"]).abs().max()
    points_a_side = round(np.sqrt(len(surfaces) / 2))
    what = (
        f"loss of y = w2 f(w1 x) on seeded data, {points_a_side} x {points_a_side} points; "
        f"losses of the teleports differ from that of W by {spread:.0e} at most"
    )
    style.footnote(figure, table, what)
    return figure


def _surface(axes: Axes, rows: pd.DataFrame, levels: np.ndarray, loss: float) -> None:
    losses = rows.pivot(index="second", columns="first", values="loss")
    axes.contourf(losses.columns, losses.index, losses, levels=levels, cmap="Greys_r", alpha=0.75)
    axes.contour(losses.columns, losses.index, losses, levels=[loss], **LEVEL)
