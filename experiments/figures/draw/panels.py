"""One panel of loss curves: the methods in it as mean and spread over seeds, what their teleports did, what failed."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

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
LOSSES = {"train": "training loss", "test": "test loss"}
KEY = ["data", "model", "optimizer", "teleport", "seed"]


@dataclass(frozen=True)
class Curve:
    """One method's losses over its seeds; arrays have a value an evaluation."""

    x: np.ndarray  # mean over seeds; seeds differ only in seconds
    mean: np.ndarray  # nan from where a seed has diverged
    std: np.ndarray  # with n - 1; 0 for one seed
    seeds: int
    diverged: int  # seeds with a loss that is not finite


def average(evaluations: pd.DataFrame, x: str, loss: str) -> Curve:
    """The ``loss`` (``train`` or ``test``) of one method over its seeds, evaluation by evaluation.

    A run ends where it diverges; its last row, which no other seed has, is left out of the curve.
    """
    finite = np.isfinite(evaluations[f"{loss}_loss"].astype(float))
    kept = evaluations[finite]
    values = kept.pivot(index="step", columns="seed", values=f"{loss}_loss").astype(float)
    std = values.std(axis="columns", ddof=1) if values.shape[1] > 1 else values.iloc[:, 0] * 0.0
    return Curve(
        x=kept.groupby("step")[x].mean().to_numpy(float),
        mean=values.mean(axis="columns", skipna=False).to_numpy(),
        std=std.to_numpy(),
        seeds=values.shape[1],
        diverged=evaluations.loc[~finite, "seed"].nunique(),
    )


def check(drawing: str, table: pd.DataFrame, axes: Sequence[str], losses: Sequence[str]) -> None:
    """Refuse what the panels of ``drawing`` cannot show.

    Raises:
        UserError: an unknown axis or loss, runs that differ in more than the panels show, seconds of several machines.
    """
    for x in axes:
        if x not in AXES:
            raise one_of(f"x of the drawing '{drawing}'", x, list(AXES))
    for loss in losses:
        if loss not in LOSSES:
            raise one_of(f"loss of the drawing '{drawing}'", loss, list(LOSSES))
    if "seconds" in axes:
        refuse_mixed_hardware(table)
    runs = table[table["event"] == "evaluation"]
    if runs.duplicated([*KEY, "step"]).any():
        raise UserError(
            f"the drawing '{drawing}' tells runs apart by data, model, optimizer, teleport and seed, and this figure "
            "has several runs that share all of them; give each setting a file of its own in conf/teleport"
        )


def unique(table: pd.DataFrame, columns: list[str]) -> list[tuple[str, ...]]:
    """The values of ``columns``, each once, in the order of the table."""
    return list(table[columns].drop_duplicates().itertuples(index=False, name=None))


def panel(axes: Axes, table: pd.DataFrame, looks: dict[str, style.Look], x: str, loss: str) -> None:
    """Draw the table of one data set, model and optimizer, a line a method.

    The runs without teleports come last, so that they show where another curve is the same.
    """
    remarks = []
    for method in sorted(table["teleport"].unique(), key=lambda name: (name == "none", list(looks).index(name))):
        rows, look = table[table["teleport"] == method], looks[method]
        evaluations, teleports = rows[rows["event"] == "evaluation"], rows[rows["event"] == "teleport"]
        if len(evaluations):
            curve = average(evaluations, x, loss)
            _line(axes, curve, look)
            _marks(axes, curve, teleports, look, x)
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


def _marks(axes: Axes, curve: Curve, teleports: pd.DataFrame, look: style.Look, x: str) -> None:
    """A triangle on the curve where a teleport happened, hollow where it moved nothing."""
    for _, event in teleports.groupby("step"):
        moved = event["moved_layers"].sum() > 0
        at = event[x].mean()
        height = np.exp(np.interp(at, curve.x, np.log(curve.mean)))  # on the straight line that a log axis shows
        face = look.color if moved else "white"
        axes.plot(at, height, "v", markersize=3.2, markeredgewidth=0.7, color=look.color, mfc=face, zorder=4)


def _write(axes: Axes, remarks: list[tuple[style.Look, str]]) -> None:
    """What is to be said of the lines, in their colours, from the panel's upper right corner down."""
    height = 0.97
    for look, remark in remarks:
        lines = textwrap.wrap(remark, 38, max_lines=4, placeholder=" ...")
        text = "\n".join(lines)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
        place = {"transform": axes.transAxes, "ha": "right", "va": "top", "zorder": 5, "bbox": box}
        axes.text(0.99, height, text, color=look.color, fontsize=5.5, **place)
        height -= 0.085 * len(lines)


def log_scale(line: Sequence[Axes]) -> None:
    """A log axis for panels that share it. It shows at most three times the highest loss at the start: a curve that
    leaves it has blown up.
    """
    drawn = [curve.get_ydata() for axes in line for curve in axes.lines if len(curve.get_ydata()) > 1]
    for axes in line:
        axes.set_yscale("log", nonpositive="clip")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.03)
    finite = [values[np.isfinite(values)] for values in drawn]
    finite = [values for values in finite if len(values)]
    if finite:
        top = min(max(values.max() for values in finite), 3 * max(values[0] for values in finite))
        bottom = min(values.min() for values in finite)
        line[0].set_ylim(bottom / 1.15, top * 1.15)


def legend(figure: Figure, table: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    """The methods' names, and what is to be said under the picture."""
    handles = [Line2D([], [], color=look.color, linestyle=look.line, label=look.label) for look in looks.values()]
    if (table["event"] == "teleport").any():
        mark = {"marker": "v", "markersize": 4, "linestyle": "", "color": style.GRAY}
        handles.append(Line2D([], [], label="teleport (hollow: moved nothing)", **mark))
    style.legend(figure, handles)
    seeds = sorted(set(table.groupby(["data", "model"])["seed"].nunique()))
    counts = " or ".join(map(str, seeds))
    style.footnote(figure, table, "one seed" if seeds == [1] else f"mean and standard deviation over {counts} seeds")
