"""Error control: loss and gradient norm along the steps of a teleport, a line for each threshold."""

from __future__ import annotations

import textwrap

import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.figures import style


def draw_error_control(table: pd.DataFrame, title: str) -> Figure:
    """Left the loss on the teleport batch by step, right its gradient norm; dark is close to the exact null space.

    Args:
        table: rows of ``measure/error_control.py``.
        title: of the whole picture.
    """
    figure = Figure(figsize=(style.WIDTH, 2.9), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0.06, 1, 0.94))
    loss, norm = figure.subplots(1, 2)
    measured, failed = table[table["reason"] == ""], table[table["reason"] != ""]
    thresholds = sorted(measured["threshold"].unique(), reverse=True)
    colors = colormaps["viridis"]([0.9 * index / max(1, len(thresholds) - 1) for index in range(len(thresholds))])
    handles = []
    for color, marker, threshold in zip(colors, "osD^vP" * len(thresholds), thresholds, strict=False):
        rows = measured[measured["threshold"] == threshold].sort_values("step")
        look = {"color": color, "marker": marker, "markersize": 3, "linewidth": 1.1}
        loss.plot(rows["step"], rows["loss"], **look)
        norm.plot(rows["step"], rows["gradient_norm"], **look)
        handles.append(Line2D([], [], **look, label=threshold_name(threshold)))
    loss.set_ylabel("loss")
    norm.set_ylabel("gradient norm")
    norm.set_yscale("log")
    for axes in (loss, norm):
        axes.set_xlabel("teleport step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for row in failed.itertuples():
        loss.text(0.5, 0.5, textwrap.fill(row.reason, 50), transform=loss.transAxes, ha="center", fontsize=6)
    if handles:
        figure.legend(handles=handles, loc="outside right upper", title="threshold", alignment="left")
    figure.suptitle(title)
    style.footnote(figure, table, "one teleport batch, fixed steps, no guard")
    return figure


def threshold_name(threshold: float) -> str:
    """``1`` as numerical rank, what is near it by its distance, the others as they are."""
    if threshold == 1.0:
        return "1 (numerical rank)"
    return f"1 - {1 - threshold:.0e}".replace("e-0", "e-") if threshold > 0.99995 else f"{threshold:g}"
