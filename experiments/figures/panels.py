"""One panel of curves: mean and spread of each method over seeds, marks of teleports, remarks on failures."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.errors import UserError, one_of
from experiments.figures import style
from experiments.figures.table import refuse_mixed_hardware

AXES = {"epoch": "epoch", "seconds": "seconds of training and teleports", "step": "step"}
KEY = ["data", "model", "optimizer", "teleport", "seed"]


@dataclass(frozen=True)
class Quantity:
    """A recorded quantity that a panel shows against its horizontal axis."""

    column: str
    name: str
    log: bool = True  # its axis


QUANTITIES = {
    "train": Quantity("train_loss", "training loss"),
    "test": Quantity("test_loss", "test loss"),
    "accuracy": Quantity("test_metric", "test accuracy", log=False),
}


@dataclass(frozen=True)
class Curve:
    """One line over its seeds; arrays have one value per evaluation."""

    x: np.ndarray  # mean over seeds; seeds differ only in seconds
    mean: np.ndarray  # nan from where a seed has diverged
    std: np.ndarray  # with n - 1; 0 for one seed
    seeds: int
    diverged: int  # seeds with a loss that is not finite


def average(evaluations: pd.DataFrame, x: str, quantity: Quantity) -> Curve:
    """The ``quantity`` of one line over its seeds, per evaluation.

    A diverged run ends with a row that is not finite, at a step that no other seed has; it is left out of the curve.
    """
    finite = np.isfinite(evaluations[["train_loss", quantity.column]].astype(float)).all(axis="columns")
    converged = evaluations[finite]
    values = converged.pivot(index="step", columns="seed", values=quantity.column).astype(float)
    std = values.std(axis="columns", ddof=1) if values.shape[1] > 1 else values.iloc[:, 0] * 0.0
    return Curve(
        x=converged.groupby("step")[x].mean().to_numpy(float),
        mean=values.mean(axis="columns", skipna=False).to_numpy(),
        std=std.to_numpy(),
        seeds=values.shape[1],
        diverged=evaluations.loc[~finite, "seed"].nunique(),
    )


def check(
    drawing: str, table: pd.DataFrame, axes: Sequence[str], quantities: Sequence[str], keys: Sequence[str] = ()
) -> None:
    """Check that the panels of ``drawing`` can show a table; runs are identified by ``keys`` besides :data:`KEY`.

    Raises:
        UserError: an axis, quantity or key is unknown, runs differ in a key that is not shown, or seconds were measured
            on several machines.
    """
    for x in axes:
        if x not in AXES:
            raise one_of(f"x of the drawing '{drawing}'", x, list(AXES))
    for quantity in quantities:
        if quantity not in QUANTITIES:
            raise one_of(f"quantity of the drawing '{drawing}'", quantity, list(QUANTITIES))
    swept = list(table.columns[: table.columns.get_loc("step")])  # a table's first columns, see ARCHITECTURE.md
    for key in keys:
        if key not in swept:
            raise one_of(f"key of this figure's runs for the drawing '{drawing}'", key, swept)
    if "seconds" in axes:
        refuse_mixed_hardware(table)
    runs = table[table["event"] == "evaluation"]
    if runs.duplicated([*KEY, *keys, "step"]).any():
        identity = ", ".join([*KEY[:-1], *keys])
        raise UserError(
            f"the drawing '{drawing}' identifies runs by {identity} and seed, but this figure has several runs "
            "with the same values; give each setting a file in conf/teleport, or take the drawing 'curves' and name "
            "the key in which they differ among its 'rows' or 'lines'"
        )


def name_lines(table: pd.DataFrame, keys: Sequence[str] = ()) -> tuple[pd.DataFrame, dict[str, style.Look]]:
    """The table with a column ``line``, and the look of each line: one per method and combination of its ``keys``.

    A method without such a key (for instance no teleport, which has no range) is one line.
    """

    def name(run: dict[str, Any]) -> str:
        method = run["teleport"]
        settings = [style.setting(key, run[key]) for key in keys if pd.notna(run[key])]
        return ", ".join([style.looks([method])[method].label, *settings]) if settings else method

    named = table.assign(line=[name(run) for run in table[["teleport", *keys]].to_dict("records")])
    return named, style.looks(list(named["line"].unique()))


def unique(table: pd.DataFrame, columns: list[str]) -> list[tuple[str, ...]]:
    """The distinct values of ``columns``, in the order of the table."""
    return list(table[columns].drop_duplicates().itertuples(index=False, name=None))


def panel(axes: Axes, table: pd.DataFrame, looks: dict[str, style.Look], x: str, quantity: Quantity) -> None:
    """Draw the table of one data set, model and optimizer, with the column ``line`` of :func:`name_lines`.

    Runs without teleports are drawn last, so that they are visible on top of identical curves.
    """
    remarks = []
    for name in sorted(table["line"].unique(), key=lambda name: (name == "none", list(looks).index(name))):
        rows, look = table[table["line"] == name], looks[name]
        evaluations, teleports = rows[rows["event"] == "evaluation"], rows[rows["event"] == "teleport"]
        if len(evaluations):
            curve = average(evaluations, x, quantity)
            _line(axes, curve, look)
            _marks(axes, curve, teleports, look, x, quantity)
            if curve.diverged:
                remarks.append((look, f"{look.label}: diverged in {curve.diverged} of {curve.seeds} runs"))
        still = teleports.groupby("seed")["moved_layers"].sum() == 0
        if still.any():
            count = "" if still.all() else f" in {still.sum()} of {len(still)} runs"
            remarks.append((look, f"{look.label}: no-op{count}"))
        for reason, failed in rows[rows["reason"] != ""].groupby("reason"):
            seeds = ", ".join(str(seed) for seed in failed["seed"])
            remarks.append((look, f"{look.label}, seed {seeds}: {reason}"))
    _write(axes, remarks)


def _line(axes: Axes, curve: Curve, look: style.Look) -> None:
    axes.plot(curve.x, curve.mean, color=look.color, linestyle=look.line, zorder=3)
    if curve.seeds > 1:
        low, high = curve.mean - curve.std, curve.mean + curve.std
        axes.fill_between(curve.x, low, high, color=look.color, alpha=0.18, linewidth=0, zorder=2)


def _marks(axes: Axes, curve: Curve, teleports: pd.DataFrame, look: style.Look, x: str, quantity: Quantity) -> None:
    """A triangle on the curve at each teleport, hollow if it was a no-op."""
    for _, event in teleports.groupby("step"):
        moved = event["moved_layers"].sum() > 0
        at = event[x].mean()
        if quantity.log:  # on the straight line between evaluations on a log axis
            height = np.exp(np.interp(at, curve.x, np.log(curve.mean)))
        else:
            height = np.interp(at, curve.x, curve.mean)
        face = look.color if moved else "white"
        axes.plot(at, height, "v", markersize=3.2, markeredgewidth=0.7, color=look.color, mfc=face, zorder=4)


def _write(axes: Axes, remarks: list[tuple[style.Look, str]]) -> None:
    """Write remarks in the colours of their lines, from the panel's upper right corner down."""
    height = 0.97
    for look, remark in remarks:
        lines = textwrap.wrap(remark, 38, max_lines=4, placeholder=" ...")
        text = "\n".join(lines)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
        place = {"transform": axes.transAxes, "ha": "right", "va": "top", "zorder": 5, "bbox": box}
        axes.text(0.99, height, text, color=look.color, fontsize=5.5, **place)
        height -= 0.085 * len(lines)


def scale(line: Sequence[Axes], quantity: Quantity) -> None:
    """Set the axis of ``quantity`` for the panels that share it.

    The upper limit of a log axis is at most three times the highest initial value, so that a curve that diverges leaves
    the panel.
    """
    for axes in line:
        axes.margins(x=0.03)
    if not quantity.log:
        return
    drawn = [curve.get_ydata() for axes in line for curve in axes.lines if len(curve.get_ydata()) > 1]
    for axes in line:
        axes.set_yscale("log", nonpositive="clip")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    finite = [values[np.isfinite(values)] for values in drawn]
    finite = [values for values in finite if len(values)]
    if finite:
        top = min(max(values.max() for values in finite), 3 * max(values[0] for values in finite))
        bottom = min(values.min() for values in finite)
        line[0].set_ylim(bottom / 1.15, top * 1.15)


def legend(figure: Figure, table: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    """Draw the legend of the methods, and the footnote with the number of seeds."""
    handles = [Line2D([], [], color=look.color, linestyle=look.line, label=look.label) for look in looks.values()]
    if (table["event"] == "teleport").any():
        mark = {"marker": "v", "markersize": 4, "linestyle": "", "color": style.GRAY}
        handles.append(Line2D([], [], label="teleport (hollow: moved nothing)", **mark))
    style.legend(figure, handles)
    seeds = sorted(set(table.groupby(["data", "model"])["seed"].nunique()))
    counts = " or ".join(map(str, seeds))
    style.footnote(figure, table, "one seed" if seeds == [1] else f"mean and standard deviation over {counts} seeds")
