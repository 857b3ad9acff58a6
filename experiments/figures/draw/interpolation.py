"""Loss and accuracy along the line between two networks, before and after teleports."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.figures import style

LOSS = {"color": style.PALETTE[0]}
ACCURACY = {"color": style.PALETTE[1]}
SPLITS = {"train": "-", "test": "--"}


def draw_interpolation(table: pd.DataFrame, title: str) -> Figure:
    """A panel a range: losses on a log axis, accuracies on one of their own.

    Args:
        table: rows of ``measure/interpolation.py``.
        title: of the whole picture.
    """
    figure = style.page(title, 2.8)
    measured, failed = table[table["reason"] == ""], table[table["reason"] != ""]
    ranges = list(measured["range"].unique()) if len(measured) else [0.0]
    panels = figure.subplots(1, len(ranges), squeeze=False, sharey=True)[0]
    right = None
    for axes, size in zip(panels, ranges, strict=True):
        axes.set_title(f"range {size:g}" if size else "not teleported")
        axes.set_xlabel("alpha, from A (0) to B (1)")
        axes.set_yscale("log")
        other = axes.twinx()
        other.set_ylim(0, 1)
        other.grid(False)
        other.tick_params(right=axes is panels[-1], labelright=axes is panels[-1])
        right = other
        for split, line in SPLITS.items():
            rows = measured[(measured["range"] == size) & (measured["split"] == split)] if len(measured) else measured
            if len(rows):
                axes.plot(rows["alpha"], rows["loss"], linestyle=line, **LOSS)
                other.plot(rows["alpha"], rows["accuracy"], linestyle=line, **ACCURACY)
    panels[0].set_ylabel("loss")
    right.set_ylabel("accuracy")
    style.no_result(panels[0], failed)
    handles = [Line2D([], [], label="loss", **LOSS), Line2D([], [], label="accuracy", **ACCURACY)]
    handles += [Line2D([], [], color=style.GRAY, linestyle=line, label=split) for split, line in SPLITS.items()]
    style.legend(figure, handles)
    style.footnote(figure, table, "A was trained with small batches, B with large ones")
    return figure
