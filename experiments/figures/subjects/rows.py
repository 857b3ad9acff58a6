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
MOST_COLUMNS = 3  # of a single optimizer


def draw_rows(
    table: pd.DataFrame, title: str, *, rows: Sequence[Mapping[str, str]], lines: Sequence[str] = ()
) -> page.Page:
    """Panels: one row per entry of ``rows``, one column per optimizer; one line per method.

    With a single optimizer the entries are beside each other. A panel has scales of its own, and names its optimizer
    and model, which may differ between data sets and optimizers, unless the panel above has the same.

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

    single = len(optimizers) == 1  # then rows are beside each other
    fewest = -(-len(rows) // MOST_COLUMNS)
    columns = -(-len(rows) // fewest) if single else len(optimizers)
    places = [
        (row, optimizer, table[(table["data"] == row["data"]) & (table["optimizer"] == optimizer)])
        for row in rows
        for optimizer in optimizers
    ]
    titles = [_title(here, row["data"], optimizer) for row, optimizer, here in places]
    above = [""] * columns + titles
    titles = [title if single or title != other else "" for title, other in zip(titles, above, strict=False)]
    lines_of_panels = [titles[start : start + columns] for start in range(0, len(places), columns)]
    height = sum((2.2 if single else 1.4) + (0.2 if any(line) else 0) for line in lines_of_panels)
    figure = page.start(title, height + 0.2)
    axes = figure.subplots(len(lines_of_panels), columns, squeeze=False).flatten()
    remarks, several = panels.Remarks(), table["data"].nunique() > 1
    for number, ((row, optimizer, here), panel) in enumerate(zip(places, axes, strict=False)):
        where = [style.label(style.DATA, row["data"])] if several else []
        where += [] if single else [style.label(style.OPTIMIZERS, optimizer)]
        _panel(panel, here, looks, row, where, remarks)
        panel.set_title(titles[number])
        if single or number % columns == 0:
            panel.set_ylabel(f"{style.label(style.DATA, row['data'])}\n{QUANTITIES[row['loss']].name}")
    for panel in axes[len(places) :]:
        panel.set_axis_off()
    panels.legend(figure, table, looks, remarks)
    return figure


def _title(table: pd.DataFrame, data: str, optimizer: str) -> str:
    """The optimizer and the model of a panel with the rows ``table``; empty if there are none.

    Raises:
        UserError: it has several models.
    """
    models = [model for (model,) in unique(table, ["model"])]
    if len(models) > 1:
        raise UserError(
            f"the drawing 'rows' shows one model per data set and optimizer, but {data} with {optimizer} has "
            f"{' and '.join(models)}; take the drawing 'curves', which has a row for each"
        )
    return ", ".join([style.label(style.OPTIMIZERS, optimizer), style.label(style.MODELS, models[0])]) if models else ""


def _panel(
    axes: Axes,
    table: pd.DataFrame,
    looks: dict[str, style.Look],
    row: Mapping[str, str],
    where: Sequence[str],
    remarks: panels.Remarks,
) -> None:
    """One optimizer on the data set of a row; empty if it has no runs. ``where`` names the panel in remarks."""
    if table.empty:
        axes.set_axis_off()
        return
    quantity = QUANTITIES[row["loss"]]
    drawn = panels.panel(axes, table, looks, row["x"], quantity, remarks, " ".join(where), where[0] if where else "")
    scales.finish([drawn], quantity, remarks)
    axes.set_xlabel(SHORT_AXES[row["x"]])
    axes.xaxis.set_major_locator(MaxNLocator(6 if row["x"] == "epoch" else 5, integer=row["x"] != "seconds"))
