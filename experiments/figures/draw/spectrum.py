"""Spectra of layer inputs: how much energy the first eigenvectors hold, and how much is left after them."""

from __future__ import annotations

import textwrap
from itertools import cycle

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from experiments.figures import style

COLORS = (*style.PALETTE[:6], "#000000", "#8C6D31", "#7A7A7A")  # one for each of the paper's nine data sets
LEAST = 1e-10  # energy left that is shown
LINES = {"trained": "-", "init": (0, (2, 1.5))}
STATES = {"trained": "trained", "init": "at initialisation"}


def draw_spectrum(table: pd.DataFrame, title: str) -> Figure:
    """Left the cumulative energy by share of eigenvectors; right what is left of it, on a log axis.

    Args:
        table: rows of ``measure/spectrum.py``.
        title: of the whole picture.
    """
    figure = style.page(title, 3.6)
    held, left, names = figure.subplots(1, 3, width_ratios=(1, 1, 0.62))
    measured, failed = table[table["reason"] == ""], table[table["reason"] != ""]
    handles = []
    for color, (_, rows) in zip(cycle(COLORS), measured.groupby(["data", "model"], sort=False), strict=False):
        for state, spectrum in rows.groupby("state", sort=False):
            look = {"color": color, "linestyle": LINES[state], "linewidth": 1.4 if state == "trained" else 0.9}
            held.plot(spectrum["share"], spectrum["energy"], **look)
            left.plot(spectrum["share"], spectrum["rest"].clip(lower=LEAST / 10), **look)  # nothing left: off the axis
        handles.append(Line2D([], [], color=color, label=_name(rows.iloc[0])))
    for state in measured["state"].unique():
        handles.append(Line2D([], [], color=style.GRAY, linestyle=LINES[state], label=STATES[state]))
    held.set_ylabel("cumulative energy")
    left.set_ylabel("energy left")
    left.set_yscale("log")
    left.set_ylim(LEAST, 1.5)
    for axes in (held, left):
        axes.set_xlabel("share of eigenvectors, largest first")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlim(-0.01, 1.01)
    held.set_ylim(top=1.01)
    names.legend(handles=handles, loc="upper left", fontsize=6, borderaxespad=0)
    names.set_axis_off()
    reasons = [f"{style.label(style.DATA, row.data)}: {row.reason}" for row in failed.itertuples()]
    if reasons:
        text = "\n".join(textwrap.fill(reason, 40, max_lines=4, placeholder=" ...") for reason in reasons)
        held.text(0.98, 0.03, text, transform=held.transAxes, ha="right", va="bottom", fontsize=5.5, color=style.GRAY)
    style.footnote(figure, table, "inputs of one teleport batch; d counts the 1 that a bias appends")
    return figure


def _name(row: pd.Series) -> str:
    """``CIFAR-10, CNN`` and, below, which layer's inputs of how many dimensions."""
    data, model = style.label(style.DATA, row["data"]), style.label(style.MODELS, row["model"])
    return f"{data}, {model}\n  {row['layer'].removesuffix('.weight')}, d = {int(row['dimension'])}"
