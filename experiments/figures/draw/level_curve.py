"""How far teleports go against how much the loss changes, with the means as a table."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import style

LEAST = 1e-17  # differences of 0 are drawn at it
ROWS = {
    "weight_magnitude": "mean |W|",
    "weight_difference": "mean |V - W|",
    "loss_before": "loss",
    "loss_difference": "mean |change of the loss|",
}


def draw_level_curve(table: pd.DataFrame, title: str) -> Figure:
    """Left a point a teleport and precision, right their means.

    Args:
        table: rows of ``measure/level_curve.py``.
        title: of the whole picture.
    """
    figure = style.page(title, 2.8)
    points, means = figure.subplots(1, 2, width_ratios=(1.2, 1))
    means.set_axis_off()
    if (table["reason"] != "").any():
        style.no_result(points, table)
        style.footnote(figure, table, "no result")
        return figure
    rows = table.assign(loss_difference=(table["loss_after"] - table["loss_before"]).abs())
    for (precision, own), color in zip(rows.groupby("precision"), style.PALETTE, strict=False):
        look = {"color": color, "marker": "o", "markersize": 2.5, "linestyle": "", "label": precision}
        points.plot(own["weight_difference"], own["loss_difference"].clip(lower=LEAST), **look)
    points.set_yscale("log")
    points.set_xlabel("mean |V - W| of a teleport")
    points.set_ylabel("|change of the loss|")
    points.legend()
    _table(means, rows)
    count = rows.groupby("precision")["number"].nunique().max()
    style.footnote(
        figure, table, f"{count} inter-landscape teleports from the same weights, a change of 0 at {LEAST:.0e}"
    )
    return figure


def _table(axes: Axes, rows: pd.DataFrame) -> None:
    means = rows.groupby("precision")[list(ROWS)].mean()
    cells = [[f"{means.loc[precision, column]:.3g}" for precision in means.index] for column in ROWS]
    drawn = axes.table(
        cells, rowLabels=list(ROWS.values()), colLabels=list(means.index), loc="center right", colWidths=[0.26, 0.26]
    )
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(7)
    drawn.scale(1, 1.4)
    for cell in drawn.get_celld().values():
        cell.set_linewidth(0.4)
