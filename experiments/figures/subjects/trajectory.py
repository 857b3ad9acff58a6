"""Trajectories of a point over a function of two variables: on its level sets, and the value by step."""

from __future__ import annotations

import math
import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.errors import UserError, one_of
from experiments.figures import page, style
from experiments.figures.runs import FigureRun
from experiments.functions import FUNCTIONS
from experiments.run.runs import load_table

LEVELS = 14
"""Number of level sets drawn of each function, evenly in its logarithm."""


def measure_trajectory(run: FigureRun) -> pd.DataFrame:
    """The recorded positions of the point with their losses, in the order of the trajectory.

    Returns:
        rows ``step``, ``moment`` (``evaluation``, ``before teleport`` or ``after teleport``), ``x``, ``y``, ``loss``.

    Raises:
        UserError: the run's model is not a point of two coordinates, or a table of the run cannot be read.
    """
    assert run.folder is not None
    if not (run.folder / "positions.csv").exists():
        raise UserError("the measure 'trajectory' needs a run with model=point")
    positions = load_table(run.folder, "positions")
    count = positions["coordinate"].nunique()
    if count != 2:
        raise UserError(f"the measure 'trajectory' needs a model of two coordinates, not of {count}")
    places = positions.pivot(index=["step", "moment"], columns="coordinate", values="value")
    places = places.set_axis(["x", "y"], axis="columns")
    curve, events = load_table(run.folder, "curve"), load_table(run.folder, "teleport_events")
    losses = {  # in the order of the trajectory, which is not alphabetical
        "evaluation": curve.set_index("step")["train_loss"],
        "before teleport": events.set_index("step")["train_loss_before"],
        "after teleport": events.set_index("step")["train_loss_after"],
    }
    known = pd.concat(losses, names=["moment", "step"]).rename("loss").reset_index()
    known["order"] = known["moment"].map({moment: number for number, moment in enumerate(losses)})
    rows = known.merge(places, on=["step", "moment"]).sort_values(["step", "order"], ignore_index=True)
    return rows[["step", "moment", "x", "y", "loss"]]


def draw_trajectory(table: pd.DataFrame, title: str) -> page.Page:
    """One column per function: above the trajectories of all methods on its level sets, below its value by step.

    Teleports are dotted lines, from a dot to a triangle. Points with more than twice the initial value are left out as
    diverged.

    Args:
        table: rows of :func:`measure_trajectory`.
        title: of the whole picture.

    Raises:
        UserError: a data set is not a test function.
    """
    names = list(table["data"].unique())
    for name in names:
        if name not in FUNCTIONS:
            raise one_of("test function of the drawing 'trajectory'", name, sorted(FUNCTIONS))
    looks = style.looks(list(table["teleport"].unique()))
    figure = page.start(title, 4.3)
    axes = figure.subplots(2, len(names), squeeze=False)
    for name, above, below in zip(names, axes[0], axes[1], strict=True):
        rows = table[(table["data"] == name) & (table["reason"] == "")]
        rows = rows[rows["loss"] <= 2 * rows.loc[rows["step"] == 0, "loss"].max()]
        for method, look in looks.items():
            _trajectory(above, rows[rows["teleport"] == method], look)
            _values(below, rows[rows["teleport"] == method], look)
        _level_sets(above, name)
        above.set_title(style.label(style.DATA, name))
        below.set_xlabel("step")
        below.set_yscale("log")
        failed = table[(table["data"] == name) & (table["reason"] != "")]
        text = "\n".join(textwrap.fill(f"{looks[row.teleport].label}: {row.reason}", 38) for row in failed.itertuples())
        below.text(0.98, 0.97, text, transform=below.transAxes, ha="right", va="top", fontsize=5.5, color=style.GRAY)
    axes[0][0].set_ylabel("y")
    axes[1][0].set_ylabel("value of the function")
    handles = [Line2D([], [], color=look.color, linestyle=look.line, label=look.label) for look in looks.values()]
    handles.append(Line2D([], [], color=style.GRAY, linestyle=":", marker="v", markersize=3.5, label="teleport"))
    page.legend(figure, handles)
    page.footnote(figure, table, "gradient descent; level sets evenly in the logarithm; cross: the minimum")
    return figure


def _trajectory(axes: Axes, rows: pd.DataFrame, look: style.Look) -> None:
    """Steps as lines with dots, teleports as dotted lines that end in a triangle."""
    line = {"color": look.color, "linestyle": look.line, "linewidth": 1.0, "marker": ".", "markersize": 2.5}
    for _, piece in rows.groupby((rows["moment"] == "after teleport").cumsum()):
        axes.plot(piece["x"], piece["y"], **line, zorder=3)
    before, after = (rows[rows["moment"] == f"{when} teleport"] for when in ("before", "after"))
    for jump in before.merge(after, on="step", suffixes=("_from", "_to")).itertuples():
        axes.plot([jump.x_from, jump.x_to], [jump.y_from, jump.y_to], ":", color=look.color, linewidth=0.8, zorder=3)
        axes.plot(jump.x_to, jump.y_to, "v", color=look.color, markersize=3.5, zorder=4)


def _values(axes: Axes, rows: pd.DataFrame, look: style.Look) -> None:
    """The value by step; teleports, which leave it unchanged, are triangles on the line."""
    axes.plot(rows["step"], rows["loss"], color=look.color, linestyle=look.line, zorder=3)
    teleports = rows[rows["moment"] == "after teleport"]
    axes.plot(teleports["step"], teleports["loss"], "v", color=look.color, markersize=3.5, zorder=4)


def _level_sets(axes: Axes, name: str) -> None:
    """The level sets of the function within the limits of the trajectories, and its minimum."""
    function = FUNCTIONS[name]
    axes.plot(*function.minimum, "x", color="black", markersize=4, zorder=5)
    axes.margins(0.12)
    limits = axes.get_xlim(), axes.get_ylim()
    x, y = np.meshgrid(*(np.linspace(*limit, 200) for limit in limits))
    value = function(x, y)
    low, high = math.log10(max(value.min(), value.max() * 1e-4)), math.log10(value.max())
    # Rounded, as the last bits of powers differ between processors and a level may be the value of a point.
    levels = [float(f"{10 ** (low + (high - low) * (step + 0.5) / LEVELS):.6g}") for step in range(LEVELS)]
    axes.contour(x, y, value, levels=levels, colors="#BBBBBB", linewidths=0.5, zorder=1)
    axes.set(xlim=limits[0], ylim=limits[1], xlabel="x")
    axes.grid(False)
