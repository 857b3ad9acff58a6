"""Loss curves in rows, each with a data set, an axis and a loss of its own; the table is that of ``curves``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.errors import UserError, one_of
from experiments.figures import panels, style
from experiments.figures.panels import AXES, QUANTITIES, unique

KEYS = ("data", "x", "loss")


def draw_rows(table: pd.DataFrame, title: str, *, rows: Sequence[Mapping[str, str]]) -> Figure:
    """Panels: a row as said, a column for each optimizer; a line for each method.

    A panel names its model, which may be another one for each data set and optimizer, and has scales of its own.

    Args:
        table: rows of :func:`measure_curves`.
        title: of the whole picture.
        rows: from the top, each with ``data`` (a data set of the table), ``x`` (``epoch``, ``step`` or ``seconds``)
            and ``loss`` (``train`` or ``test``; ``accuracy`` goes as well).

    Raises:
        UserError: a row that lacks a key or has another, an unknown value, runs that differ in more than these panels
            show, seconds of several machines.
    """
    for row in rows:
        if set(row) != set(KEYS):
            raise UserError(f"a row of the drawing 'rows' has the keys {', '.join(KEYS)}, not {', '.join(row)}")
        if row["data"] not in set(table["data"]):
            raise one_of("data of the drawing 'rows'", row["data"], sorted(table["data"].unique()))
    panels.check("rows", table, [row["x"] for row in rows], [row["loss"] for row in rows])
    optimizers = [optimizer for (optimizer,) in unique(table, ["optimizer"])]
    table, looks = panels.name_lines(table)

    figure = style.page(title, 1.6 * len(rows) + 1.1)
    axes = figure.subplots(len(rows), len(optimizers), squeeze=False)
    for row, line in zip(rows, axes, strict=True):
        for optimizer, panel in zip(optimizers, line, strict=True):
            chosen = table[(table["data"] == row["data"]) & (table["optimizer"] == optimizer)]
            _panel(panel, chosen, looks, row, optimizer)
        line[0].set_ylabel(f"{style.label(style.DATA, row['data'])}\n{QUANTITIES[row['loss']].name}")
        line[len(line) // 2].set_xlabel(AXES[row["x"]])
    panels.legend(figure, table, looks)
    return figure


def _panel(
    axes: Axes, table: pd.DataFrame, looks: dict[str, style.Look], row: Mapping[str, str], optimizer: str
) -> None:
    """One optimizer on a row's data set; an empty one where there are no runs of it."""
    models = [model for (model,) in unique(table, ["model"])]
    if not models:
        axes.set_axis_off()
        return
    if len(models) > 1:
        raise UserError(
            f"the drawing 'rows' has one model a data set and optimizer, and {row['data']} with {optimizer} has "
            f"{' and '.join(models)}; the drawing 'curves' has a row for each"
        )
    quantity = QUANTITIES[row["loss"]]
    panels.panel(axes, table, looks, row["x"], quantity)
    panels.scale([axes], quantity)
    axes.set_title(f"{style.label(style.OPTIMIZERS, optimizer)}, {style.label(style.MODELS, models[0])}")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=row["x"] != "seconds"))
