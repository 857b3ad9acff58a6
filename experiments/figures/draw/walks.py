"""Three ways to move on a level set: each in the plane in which it moves, and what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from experiments.figures import style

PLANES = {"symmetry": ("v", "a"), "levelset": ("v", "a"), "nullspace": ("b", "a")}
TITLES = {"symmetry": "group action", "levelset": "linearised level set", "nullspace": "null space"}
COLORS = dict(zip(PLANES, (style.PALETTE[2], style.PALETTE[1], style.PALETTE[0]), strict=True))
RESOLUTION = 1e-16
"""Changes of a loss below it are drawn at it."""


def loss_of(v: Any, a: Any, b: Any, target: float) -> Any:
    """``(a v + b - t)^2``, the network's loss where v is positive; elementwise."""
    return (a * v + b - target) ** 2


def draw_walks(table: pd.DataFrame, title: str) -> Figure:
    """A panel a method, its steps on the loss's level sets; and the change of the loss against the gained norm.

    Args:
        table: rows of ``measure/walks.py``.
        title: of the whole picture.
    """
    figure = style.page(title, 2.6)
    *planes, cost = figure.subplots(1, 4)
    for axes, (method, (across, up)) in zip(planes, PLANES.items(), strict=True):
        rows = table[table["method"] == method]
        for number, (rho, walk) in enumerate(rows.groupby("rho", dropna=False)):
            marker, line = (("o", "-"), ("s", "--"))[number % 2]
            look = {"color": COLORS[method], "linestyle": line, "linewidth": 1.0, "marker": marker, "markersize": 2.2}
            named = {"label": TITLES[method] + (f", rho {rho:g}" if pd.notna(rho) else "")}
            axes.plot(walk[across], walk[up], **look, zorder=3)
            gained = walk["gradient_norm"] / walk["gradient_norm"].iloc[0]
            changed = (walk["loss"] / walk["loss"].iloc[0] - 1).abs().clip(lower=RESOLUTION)
            cost.plot(gained, changed, **look | named)
        _level_sets(axes, rows, across, up)
        axes.set_title(TITLES[method])
        axes.set_xlabel(across)
        axes.set_ylabel(up, rotation=0)
    cost.set_yscale("log")
    cost.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    cost.set_xlabel("gradient norm")
    cost.set_title("relative change of loss")
    cost.legend(fontsize=5.5, loc="center right", handlelength=1.5)
    style.footnote(
        figure,
        table,
        "y = a s(v x) + b with a leaky ReLU s, squared error on one sample, float64; dots are steps, all from one "
        "start, whose level set is bold; b is held fixed in the first two panels, and in the third v stays by itself",
    )
    return figure


def _level_sets(axes: Axes, rows: pd.DataFrame, across: str, up: str) -> None:
    """Of the loss in the plane of two parameters, the third as at the start; that of the start is bold."""
    start = rows.iloc[0]
    axes.margins(0.15)
    limits = axes.get_xlim(), axes.get_ylim()
    x, y = np.meshgrid(*(np.linspace(*limit, 200) for limit in limits))
    place = {name: start[name] for name in "vab"} | {across: x, up: y}
    value = loss_of(**place, target=start["target"])
    here = loss_of(*(start[name] for name in "vab"), target=start["target"])
    others = here * np.array([0.25, 0.5, 0.75, 1.25, 1.5, 2.0])
    axes.contour(x, y, value, levels=others, colors="#CCCCCC", linewidths=0.5, zorder=1)
    axes.contour(x, y, value, levels=[here], colors=style.GRAY, linewidths=2.0, zorder=1, alpha=0.6)
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.grid(False)
