"""Loss curves: a panel for each data set, loss and optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.figures import style
from experiments.figures.draw import panels
from experiments.figures.draw.panels import AXES, LOSSES, unique


def draw_curves(
    table: pd.DataFrame, title: str, *, x: str = "epoch", losses: Sequence[str] = ("train", "test")
) -> Figure:
    """Panels: a row for each data set (and model) and loss, a column for each optimizer; a line for each method.

    With one optimizer the losses are the columns.

    Args:
        table: rows of ``measure/curves.py``.
        title: of the whole picture.
        x: ``epoch``, ``step``, or ``seconds``.
        losses: ``train``, ``test`` or both.

    Raises:
        UserError: an unknown option, runs that differ in more than these panels show, seconds of several machines.
    """
    panels.check("curves", table, [x], losses)
    tasks = unique(table, ["data", "model"])
    optimizers = [optimizer for (optimizer,) in unique(table, ["optimizer"])]
    looks = style.looks([method for (method,) in unique(table, ["teleport"])])
    several_models = len({name for _, name in tasks}) > 1
    across = len(optimizers) == 1
    lines = [(*task, None) for task in tasks] if across else [(*task, loss) for task in tasks for loss in losses]

    figure = style.page(title, max(1.25 * len(lines), 2.0) + 1.1)
    columns = [*losses] if across else optimizers
    # Seconds differ from task to task, so that each row has its own.
    shared = {"sharex": "row" if x == "seconds" else True, "sharey": "row"}
    axes = figure.subplots(len(lines), len(columns), squeeze=False, **shared)
    for (data, model, row_loss), line in zip(lines, axes, strict=True):
        for column, panel in zip(columns, line, strict=True):
            optimizer, loss = (optimizers[0], column) if across else (column, row_loss)
            chosen = (table["data"] == data) & (table["model"] == model) & (table["optimizer"] == optimizer)
            panels.panel(panel, table[chosen], looks, x, loss)
        names = [style.label(style.DATA, data)]
        names += [style.label(style.MODELS, model)] if several_models else []
        names += [] if across else [LOSSES[row_loss]]
        line[0].set_ylabel("\n".join(names))
        panels.log_scale(line)
    for column, panel in zip(columns, axes[0], strict=True):
        optimizer = style.label(style.OPTIMIZERS, optimizers[0] if across else column)
        panel.set_title(f"{LOSSES[column]}, {optimizer}" if across else optimizer)
    for panel in axes[-1]:
        panel.set_xlabel(AXES[x])
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=x != "seconds"))
    panels.legend(figure, table, looks)
    return figure
