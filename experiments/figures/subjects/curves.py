"""Curves of losses and accuracy: one panel per data set, quantity, optimizer and further swept setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from experiments.configuration.tuned import NOT_TUNED, is_untuned
from experiments.errors import UserError
from experiments.figures import page, panels, scales, style
from experiments.figures.panels import AXES, QUANTITIES, REPETITION, Quantity, unique
from experiments.figures.runs import FigureRun
from experiments.run.runs import load_table, moved_layers


def measure_curves(run: FigureRun) -> pd.DataFrame:
    """The run's recorded losses: one row per evaluation or teleport, see ``event``.

    ``event`` is ``evaluation`` or ``teleport``.

    In a teleport's row the losses are those right after it, ``seconds`` is the time at which it began, ``duration`` its
    length in seconds, and ``moved_layers`` the number of layers whose weights it changed (0: a no-op).

    Raises:
        UserError: a table of the run cannot be read.
    """
    assert run.folder is not None
    evaluations = load_table(run.folder, "curve")
    evaluations = evaluations.assign(event="evaluation", duration=float("nan"), moved_layers=float("nan"))
    events = load_table(run.folder, "teleport_events")
    if events.empty:
        return evaluations
    teleports = pd.DataFrame(
        {
            "event": "teleport",
            "step": events["step"],
            "epoch": events["epoch"],
            "seconds": events["started"],
            "duration": events["seconds"],
            "train_loss": events["train_loss_after"],
            "test_loss": events["test_loss_after"],
            "moved_layers": moved_layers(run.folder, events),
        }
    )
    return pd.concat([evaluations, teleports], ignore_index=True)


def draw_curves(
    table: pd.DataFrame,
    title: str,
    *,
    x: str = "epoch",
    quantities: Sequence[str] = ("train", "test"),
    rows: Sequence[str] = (),
    lines: Sequence[str] = (),
    average: Sequence[str] = (),
) -> page.Page:
    """Panels: one row per data set (and model) and quantity, one column per optimizer; one line per method.

    With a single optimizer the quantities are the columns.

    Args:
        table: rows of :func:`measure_curves`.
        title: of the whole picture.
        x: ``epoch``, ``step``, or ``seconds``.
        quantities: of ``train`` and ``test``, which are losses, and ``accuracy``, on the test split.
        rows: swept keys; each value has rows of its own, for instance ``optimizer.lr``.
        lines: swept keys; each value is a line of its own, for instance ``teleport.range``.
        average: swept keys over whose values the runs of each seed are averaged, for instance ``optimizer.lr``.

    Raises:
        UserError: an option is unknown, runs differ in a key that is not shown or lack a key of ``rows``, or seconds
            were measured on several machines.
    """
    panels.check("curves", table, [x], quantities, [*rows, *lines, *average])
    _check_rows(table, rows)
    table = _repetitions(table, average)
    table, looks = panels.name_lines(table, lines)
    keys = ["data", "model", *rows]
    tasks, untuned = _tuned(table, table[keys].drop_duplicates().to_dict("records"))
    optimizers = [optimizer for (optimizer,) in unique(table, ["optimizer"])]
    single = len(optimizers) == 1  # then quantities are columns, else rows
    stacked = [(task, name) for task in tasks for name in ([None] if single else quantities)]
    columns = [(optimizer, name) for optimizer in optimizers for name in (quantities if single else [None])]

    figure = page.start(title, 1.25 * max(len(stacked), 1.5) + 0.3)
    # Seconds differ between tasks, so that each row has its own axis.
    axes = figure.subplots(len(stacked), len(columns), squeeze=False, sharex="row" if x == "seconds" else True)
    remarks, shared = panels.Remarks(), int(table["data"].nunique() == 1)
    several_models = table["model"].nunique() > 1
    for task in untuned:
        left_out = " ".join(_row_name(task, rows, several_models))
        remarks.add(f"left out, as they are {NOT_TUNED} yet", left_out)
    for (task, of_row), line in zip(stacked, axes, strict=True):
        here = _of_task(table, task)
        names = _row_name(task, rows, several_models)
        cells = [
            Cell(
                QUANTITIES[of_row or name],
                here[here["optimizer"] == optimizer],
                " ".join([*names[shared:], *([] if single else [style.label(style.OPTIMIZERS, optimizer)])]),
            )
            for optimizer, name in columns
        ]
        _draw_row(line, cells, " ".join(names[shared:]), looks, x, remarks)
        line[0].set_ylabel("\n".join([*names, *([QUANTITIES[of_row].name] if of_row else [])]))
    _label_columns(axes, columns, x)
    names = [f"{style.KEYS.get(key, key.rpartition('.')[2])}s" for key in average]
    each = f", each the mean over its {' and '.join(names)}" if average else ""
    panels.legend(figure, table, looks, remarks, f"seeds{each}")
    return figure


def _of_task(table: pd.DataFrame, task: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of a table that have the values of ``task``."""
    return table[(table[list(task)] == pd.Series(task)).all(axis="columns")]


def _tuned(table: pd.DataFrame, tasks: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The tasks that have rows of panels, and those of which no run was tuned; all have, if none was."""
    untuned = [task for task in tasks if _of_task(table, task)["reason"].map(is_untuned).all()]
    if len(untuned) == len(tasks):
        return tasks, []
    return [task for task in tasks if task not in untuned], untuned


def _repetitions(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The table with a name per combination of ``keys``, over which the runs of a seed are averaged."""
    if not keys:
        return table
    names = [key.rpartition(".")[2] + " " + table[key].astype(str) for key in keys]
    return table.assign(**{REPETITION: [", ".join(each) for each in zip(*names, strict=True)]})


def _check_rows(table: pd.DataFrame, rows: Sequence[str]) -> None:
    """Raise a ``UserError`` if some of the figure's runs lack one of the keys ``rows``."""
    for key in rows:
        if table[key].isna().any():
            raise UserError(
                f"the key '{key}' is among the 'rows' of the drawing 'curves', but some of the figure's runs lack it; "
                "name it among the 'lines'"
            )


def _row_name(task: Mapping[str, Any], rows: Sequence[str], several_models: bool) -> list[str]:
    """What names a row: its data set, model (if there are several), and further keys."""
    names = [style.label(style.DATA, task["data"])]
    names += [style.label(style.MODELS, task["model"])] if several_models else []
    return names + [style.setting(key, task[key]) for key in rows]


class Cell(NamedTuple):
    """A panel's quantity, the rows of its runs, and its name in a remark."""

    quantity: Quantity
    table: pd.DataFrame
    name: str


def _label_columns(axes: np.ndarray, columns: Sequence[tuple[str, str | None]], x: str) -> None:
    """The titles of the columns, and what is on the horizontal axes."""
    for (optimizer, name), panel in zip(columns, axes[0], strict=True):
        label = style.label(style.OPTIMIZERS, optimizer)
        panel.set_title(f"{QUANTITIES[name].name}, {label}" if name else label)
    for panel in axes.flat if x == "seconds" else axes[-1]:
        panel.set_xlabel(AXES[x] if len(columns) < 4 else panels.SHORT_AXES[x])
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=x != "seconds"))


def _draw_row(
    line: Sequence[Axes], cells: Sequence[Cell], row: str, looks: dict[str, style.Look], x: str, remarks: panels.Remarks
) -> None:
    """Draw a row of panels, whose name in remarks is ``row``."""
    kinds = _by_axis(line, [cell.quantity for cell in cells])
    drawn = {
        axes: panels.panel(axes, cell.table, looks, x, cell.quantity, remarks, cell.name, row)
        for cell, axes in zip(cells, line, strict=True)
    }
    for quantity, sharing in kinds:
        scales.finish([drawn[axes] for axes in sharing], quantity, remarks)


def _by_axis(line: Sequence[Axes], shown: Sequence[Quantity]) -> list[tuple[Quantity, list[Axes]]]:
    """The panels of losses and those of accuracies in a row; each kind shares the axis of its first panel."""
    kinds = []
    for loss in (True, False):
        found = [(axes, quantity) for axes, quantity in zip(line, shown, strict=True) if quantity.loss is loss]
        for axes, _ in found[1:]:
            axes.sharey(found[0][0])
            axes.tick_params(labelleft=False)
        if found:
            kinds.append((found[0][1], [axes for axes, _ in found]))
    return kinds
