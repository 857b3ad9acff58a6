"""Weights before and after a change of basis, as histograms."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.figures import style

STATES = {"before": "before", "after": "after the teleport"}


def draw_weight_histogram(table: pd.DataFrame, title: str) -> Figure:
    """Two panels with the same axes: before and after.

    Args:
        table: rows of ``measure/weight_histogram.py``.
        title: of the whole picture.
    """
    figure = style.page(title, 2.8)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, (state, name), color in zip(panels, STATES.items(), style.PALETTE, strict=False):
        axes.set_title(name)
        axes.set_xlabel("weight")
        if (table["reason"] != "").any():
            style.no_result(axes, table)
            continue
        rows = table[table["state"] == state]
        inside = rows[np.isfinite(rows["low"]) & np.isfinite(rows["high"])]
        edges = np.append(inside["low"], inside["high"].iloc[-1])
        axes.stairs(inside["count"], edges, fill=True, color=color)
        outside = rows["count"].sum() - inside["count"].sum()
        note = f"{outside / rows['count'].sum():.2%} lie outside"
        axes.text(0.98, 0.95, note, transform=axes.transAxes, ha="right", va="top", fontsize=6)
        axes.set_yscale("log")
    panels[0].set_ylabel("parameters")
    style.footnote(figure, table, "all parameters, biases included, at initialisation")
    return figure
