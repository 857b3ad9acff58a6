"""Histograms of a network's weights before and after a change of basis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from experiments.figures import page, style
from experiments.figures.runs import FigureRun

if TYPE_CHECKING:
    from torch import Tensor

STATES = {"before": "before", "after": "after the teleport"}


def measure_weight_histogram(run: FigureRun, *, range: float, limit: float, bins: int) -> pd.DataFrame:
    """Counts of the model's parameters at initialisation and after one intra-landscape teleport.

    Args:
        run: the run whose initial model is measured.
        range: of the change of basis.
        limit: the bins cover [-limit, limit]; values outside have one bin on either side.
        bins: number of bins within the limit.

    Returns:
        rows ``state`` (``before`` or ``after``), ``low``, ``high``, ``count``.
    """
    from experiments.figures.rebuilt import rebuild
    from experiments.figures.weight_space import RandomChanges, displacement, flatten, trainable

    rebuilt = rebuild(run)
    inputs, _ = rebuilt.teleport_batch(2)
    (factors,) = RandomChanges(rebuilt.model, inputs).draw(range=range, count=1, seed=rebuilt.config.seed)
    before = flatten(trainable(rebuilt.model))
    states = {"before": before, "after": before + displacement(rebuilt.model, factors)}
    frames = [histogram(values, limit, bins).assign(state=state) for state, values in states.items()]
    return pd.concat(frames, ignore_index=True)[["state", "low", "high", "count"]]


def histogram(values: Tensor, limit: float, bins: int) -> pd.DataFrame:
    """Counts of ``values`` in ``bins`` equal bins over [-limit, limit].

    Returns:
        rows ``low``, ``high``, ``count``; values outside are counted in the first and the last row, whose ``low`` and
        ``high`` are infinite.
    """
    edges = np.concatenate([[-np.inf], np.linspace(-limit, limit, bins + 1), [np.inf]])
    counts, _ = np.histogram(values.detach().cpu().double().numpy(), edges)
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "count": counts})


def draw_weight_histogram(table: pd.DataFrame, title: str) -> page.Page:
    """Two panels with the same axes: before and after the teleport.

    Args:
        table: rows of :func:`measure_weight_histogram`.
        title: of the whole picture.
    """
    figure = page.start(title, 2.1)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, (state, name), color in zip(panels, STATES.items(), style.PALETTE, strict=False):
        axes.set_title(name)
        axes.set_xlabel("weight")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if (table["reason"] != "").any():
            page.no_result(axes, table)
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
    page.footnote(figure, table, "all parameters, biases included, at initialisation")
    return figure
