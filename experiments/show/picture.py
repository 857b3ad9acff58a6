"""Runs side by side as a PNG."""

from __future__ import annotations

import io
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.figures.style import PALETTE
from experiments.show.panels import Panel, panels, spread_over_decades
from experiments.show.shown_run import ShownRun


def draw(lines: dict[str, list[ShownRun]]) -> bytes:
    """A PNG with one colour per line and one curve per run; teleports are triangles on the training loss."""
    runs = [run for each in lines.values() for run in each]
    colors = dict(zip(lines, cycle(PALETTE), strict=False))
    rows = panels(runs)
    figure = Figure(figsize=(9, 2.7 * len(rows) + 0.25 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(rows), 6)
    for number, row in enumerate(rows):
        width = 6 // len(row)
        for place, panel in enumerate(row):
            axes = figure.add_subplot(grid[number, place * width : (place + 1) * width])
            for line, own in lines.items():
                for run in own:
                    values = panel.values(run)
                    style = {"linestyle": "none", "marker": "v"} if panel.of_events else {"linewidth": 1.2}
                    axes.plot(values["at"], values["value"], color=colors[line], **style)
            if panel.y == "train_loss":
                _mark(axes, panel, lines, colors)
            if spread_over_decades(panel, runs):
                axes.set_yscale("log")
            axes.set_xlabel(panel.x)
            axes.set_title(panel.title, fontsize=9)
    handles = [
        Line2D([], [], color=colors[line], label=line + (f"  ({len(own)} seeds)" if len(own) > 1 else ""))
        for line, own in lines.items()
    ]
    figure.legend(handles=handles, loc="outside upper left", fontsize=8, frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=130)
    return image.getvalue()


def _mark(axes: Axes, panel: Panel, lines: dict[str, list[ShownRun]], colors: dict[str, str]) -> None:
    """A triangle at the loss right after each teleport; a hollow one if it moved nothing."""
    for line, own in lines.items():
        for run in own:
            for _, event in run.events.iterrows():
                at = event["started"] if panel.x == "seconds" else event["epoch"]
                face = colors[line] if event["moved_layers"] else "none"
                axes.plot(at, event["train_loss_after"], "v", color=colors[line], markerfacecolor=face, markersize=5)
