"""Loss curves in rows, each with a data set, an axis and a loss of its own; the table is that of ``curves``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from experiments.errors import UserError, one_of
from experiments.figures import page, panels, scales, style
from experiments.figures.panels import QUANTITIES, SHORT_AXES, unique

KEYS = ("data", "x", "loss")


def draw_rows(
    table: pd.DataFrame, title: str, *, rows: Sequence[Mapping[str, str]], lines: Sequence[str] = ()
) -> page.Page:
    """Panels: one row per entry of ``rows``, one column per optimizer; one line per method.

    A panel names its model, which may differ between data sets and optimizers, and has scales of its own.

    Args:
        table: rows of :func:`measure_curves`.
        title: of the whole picture.
        rows: from the top, each with ``data`` (a data set of the table), ``x`` (``epoch``, ``step`` or ``seconds``)
            and ``loss`` (``train``, ``test`` or ``accuracy``).
        lines: swept keys; each value is a line of its own, for instance ``rates``.

    Raises:
        UserError: an entry lacks a key or has an unknown one, a value is unknown, runs differ in a key that is not
            shown, or seconds were measured on several machines.
    """
    for row in rows:
        if set(row) != set(KEYS):
            raise UserError(f"a row of the drawing 'rows' has the keys {', '.join(KEYS)}, not {', '.join(row)}")
        if row["data"] not in set(table["data"]):
            raise one_of("data of the drawing 'rows'", row["data"], sorted(table["data"].unique()))
    panels.check("rows", table, [row["x"] for row in rows], [row["loss"] for row in rows], lines)
    optimizers = [optimizer for (optimizer,) in unique(table, ["optimizer"])]
    table, looks = panels.name_lines(table, lines)

    figure = page.start(title, 1.6 * len(rows) + 0.2)
    axes = figure.subplots(len(rows), len(optimizers), squeeze=False)
    remarks = panels.Remarks()
    for row, line in zip(rows, axes, strict=True):
        for optimizer, panel in zip(optimizers, line, strict=True):
            chosen = table[(table["data"] == row["data"]) & (table["optimizer"] == optimizer)]
            _panel(panel, chosen, looks, row, optimizer, remarks)
        line[0].set_ylabel(f"{style.label(style.DATA, row['data'])}\n{QUANTITIES[row['loss']].name}")
    panels.legend(figure, table, looks, remarks)
    return figure


def _panel(
    axes: Axes,
    table: pd.DataFrame,
    looks: dict[str, style.Look],
    row: Mapping[str, str],
    optimizer: str,
    remarks: panels.Remarks,
) -> None:
    """One optimizer on the data set of a row; empty if it has no runs."""
    models = [model for (model,) in unique(table, ["model"])]
    if not models:
        axes.set_axis_off()
        return
    if len(models) > 1:
        raise UserError(
            f"the drawing 'rows' shows one model per data set and optimizer, but {row['data']} with {optimizer} has "
            f"{' and '.join(models)}; take the drawing 'curves', which has a row for each"
        )
    quantity = QUANTITIES[row["loss"]]
    where = f"{style.label(style.DATA, row['data'])} {style.label(style.OPTIMIZERS, optimizer)}"
    drawn = panels.panel(axes, table, looks, row["x"], quantity, remarks, where)
    if scales.finish([drawn], quantity):
        remarks.add("the loss before the first step is above the panel", where)
    axes.set_title(f"{style.label(style.OPTIMIZERS, optimizer)}, {style.label(style.MODELS, models[0])}")
    axes.set_xlabel(SHORT_AXES[row["x"]])
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=row["x"] != "seconds"))
