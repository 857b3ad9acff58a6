"""One panel of curves: mean and range of each method over seeds, marks of teleports, remarks on failures."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from experiments.configuration.tuned import NOT_TUNED
from experiments.errors import UserError, one_of
from experiments.figures import page, style
from experiments.figures.table import refuse_mixed_hardware

AXES = {"epoch": "epoch", "seconds": "seconds of training and teleports", "step": "step"}
KEY = ["data", "model", "optimizer", "teleport", "seed"]


@dataclass(frozen=True)
class Quantity:
    """A recorded quantity that a panel shows against its horizontal axis."""

    column: str
    name: str
    loss: bool = True


QUANTITIES = {
    "train": Quantity("train_loss", "training loss"),
    "test": Quantity("test_loss", "test loss"),
    "accuracy": Quantity("test_metric", "test accuracy", loss=False),
}


@dataclass(frozen=True)
class Curve:
    """One line over its seeds; arrays have one value per evaluation."""

    x: np.ndarray  # mean over seeds; seeds differ only in seconds
    mean: np.ndarray  # nan from where a seed has diverged
    low: np.ndarray  # the smallest value of a seed, nan where the mean is
    high: np.ndarray  # the largest
    seeds: int
    diverged: int  # seeds with a loss that is not finite

    @property
    def last(self) -> int:
        """The number of the last evaluation before a seed diverged."""
        return int(np.isfinite(self.mean).nonzero()[0][-1])


def average(evaluations: pd.DataFrame, x: str, quantity: Quantity) -> Curve:
    """The ``quantity`` of one line over its seeds, per evaluation.

    A diverged run ends with a row that is not finite, at a step that no other seed has; it is left out of the curve.
    """
    finite = np.isfinite(evaluations[["train_loss", quantity.column]].astype(float)).all(axis="columns")
    converged = evaluations[finite]
    values = converged.pivot(index="step", columns="seed", values=quantity.column).astype(float)
    mean, low, high = (
        getattr(values, name)(axis="columns", skipna=False).to_numpy() for name in ("mean", "min", "max")
    )
    return Curve(
        x=converged.groupby("step")[x].mean().to_numpy(float),
        mean=mean,
        low=low,
        high=high,
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


class Remarks:
    """What is to be said about some panels, each remark once, with the panels that it is about."""

    def __init__(self) -> None:
        self._panels: dict[str, dict[str, None]] = {}

    def add(self, remark: str, where: str) -> None:
        """Say ``remark`` about the panel ``where``."""
        self._panels.setdefault(remark, {})[where] = None

    def __str__(self) -> str:
        told = {remark: ", ".join(filter(None, where)) for remark, where in self._panels.items()}
        return "; ".join(f"{remark} ({where})" if where else remark for remark, where in told.items())


@dataclass(frozen=True)
class Drawn:
    """The lines of a panel."""

    axes: Axes
    x: str
    lines: list[tuple[style.Look, Curve, pd.DataFrame]]  # look, curve, and the rows of the teleports

    @property
    def curves(self) -> list[Curve]:
        """Of all lines."""
        return [curve for _, curve, _ in self.lines]


def panel(
    axes: Axes,
    table: pd.DataFrame,
    looks: dict[str, style.Look],
    x: str,
    quantity: Quantity,
    remarks: Remarks,
    where: str,
) -> Drawn:
    """Draw the table of one data set, model and optimizer, with the column ``line`` of :func:`name_lines`.

    Runs without teleports are drawn last, so that they are visible on top of identical curves. Teleports are marked by
    :func:`finish`. What no line shows is added to ``remarks``, about the panel ``where``.
    """
    lines = []
    for name in sorted(table["line"].unique(), key=lambda name: (name == "none", list(looks).index(name))):
        rows, look = table[table["line"] == name], looks[name]
        evaluations, teleports = rows[rows["event"] == "evaluation"], rows[rows["event"] == "teleport"]
        if len(evaluations):
            curve = average(evaluations, x, quantity)
            lines.append((look, curve, teleports))
            axes.plot(curve.x, curve.mean, color=look.color, linestyle=look.line, zorder=3)
            if curve.seeds > 1:
                axes.fill_between(curve.x, curve.low, curve.high, color=look.color, alpha=0.18, linewidth=0, zorder=2)
            if curve.diverged:
                remarks.add(f"{look.label} diverged in {curve.diverged} of {curve.seeds} runs", where)
        still = teleports.groupby("seed")["moved_layers"].sum() == 0
        if still.any():
            count = "" if still.all() else f" in {still.sum()} of {len(still)} runs"
            remarks.add(f"{look.label} moved nothing{count}", where)
        for reason, failed in rows[rows["reason"] != ""].groupby("reason"):
            if f"is {NOT_TUNED}" in reason:  # the reason names the pair, as the panel does
                remarks.add(f"{look.label}: {NOT_TUNED} yet", where)
                continue
            seeds = ", ".join(str(seed) for seed in failed["seed"])
            shortened = textwrap.shorten(reason, 160, placeholder=" ...")
            remarks.add(f"no result of {look.label}, seed {seeds}: {shortened}", where)
    return Drawn(axes, x, lines)


SQUEEZED = 0.4
"""A first value that leaves the others less than this share of an axis is left outside of it."""
RATIO = 3.0
"""An axis whose ends have at least this ratio is logarithmic."""
FEW_TICKS = 12.0
"""A logarithmic axis whose ends have less than this ratio has more ticks per decade."""


def finish(line: Sequence[Drawn], quantity: Quantity) -> bool:
    """Scale the panels that share the axis of ``quantity``, and mark teleports and divergence.

    The axis of a loss is logarithmic if it spans much. A curve that diverges leaves the panel: the upper limit is at
    most three times the highest initial value.

    Returns:
        whether initial values are above the panels.
    """
    curves = [curve for drawn in line for curve in drawn.curves]
    cut = False
    for drawn in line:
        drawn.axes.margins(x=0.03)
    if curves:
        low, high, cut = _limits(curves) if quantity.loss else (*_extent(curves, 0), False)
        log = quantity.loss and low > 0 and high / low >= RATIO
        for drawn in line:
            _scale(drawn.axes, log, fine=low * FEW_TICKS > high)
        line[0].axes.set_ylim(*_with_margins(low, high, log))
        for drawn in line:
            _marks(drawn, log)
    return cut


def _extent(curves: Sequence[Curve], first: int) -> tuple[float, float]:
    """The smallest and the largest value of all seeds, from evaluation ``first`` on."""
    low = [value for curve in curves for value in curve.low[first:] if np.isfinite(value)]
    high = [value for curve in curves for value in curve.high[first:] if np.isfinite(value)]
    return (min(low), max(high)) if low else (math.nan, math.nan)


def _limits(curves: Sequence[Curve]) -> tuple[float, float, bool]:
    """The ends of the axis of a loss, and whether the values before the first step are outside."""
    start = max(curve.high[0] for curve in curves)
    low, high = _extent(curves, 1)
    if math.isnan(low):
        return *_extent(curves, 0), False
    few = max(len(curve.x) for curve in curves) < 3  # then a line to the first value is all that there is
    most = 3 * max(curve.mean[0] for curve in curves)
    if high > most:  # the scale is that of the curves that stay
        staying = [curve for curve in curves if np.nanmax(curve.mean) <= most]
        high = min(max(_extent(staying, 1)[1], start) * 1.1, most) if staying else most
    whole = min(low, *(curve.low[0] for curve in curves)), max(high, start)
    if few or low <= 0 or math.log(high / low) >= SQUEEZED * math.log(whole[1] / whole[0]):
        return *whole, False
    return low, high, True


def _scale(axes: Axes, log: bool, fine: bool) -> None:
    if log:
        axes.set_yscale("log", nonpositive="clip")
        subs = (1.0, 2.0, 3.0, 5.0, 7.0) if fine else (1.0, 2.0, 5.0)
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.get_major_formatter().set_useOffset(False)


def _with_margins(low: float, high: float, log: bool) -> tuple[float, float]:
    if log:
        margin = (high / low) ** 0.06
        return low / margin, high * margin
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _marks(drawn: Drawn, log: bool) -> None:
    """A triangle on the curve at each teleport, hollow if it was a no-op; a cross where a seed diverged next.

    What is outside of the panel is marked at its edge.
    """
    low, high = drawn.axes.get_ylim()

    def mark(marker: str, at: float, height: float, **look: Any) -> None:
        inside = float(f"{min(max(height, low), high):.10g}")  # the last bits of logarithms differ between processors
        drawn.axes.plot(at, inside, marker, markeredgewidth=0.8, zorder=4, clip_on=False, **look)

    for look, curve, teleports in drawn.lines:
        for _, event in teleports.groupby("step"):
            at = event[drawn.x].mean()
            if log:  # on the straight line between evaluations
                height = math.exp(np.interp(at, curve.x, np.log(curve.mean)))
            else:
                height = np.interp(at, curve.x, curve.mean)
            face = look.color if event["moved_layers"].sum() > 0 else "white"
            mark("v", at, height, markersize=3.4, color=look.color, mfc=face)
        if curve.diverged:
            mark("x", curve.x[curve.last], curve.mean[curve.last], markersize=5, color=look.color)


def legend(
    figure: page.Page, table: pd.DataFrame, looks: dict[str, style.Look], remarks: Remarks, repetitions: str = "seeds"
) -> None:
    """Draw the legend of the methods, and the footnote with the number of ``repetitions`` and the remarks."""
    page.legend(
        figure, [Line2D([], [], color=look.color, linestyle=look.line, label=look.label) for look in looks.values()]
    )
    seeds = sorted(set(table.groupby(["data", "model"])["seed"].nunique()))
    counts = " or ".join(map(str, seeds))
    notes = ["one seed" if seeds == [1] else f"line: mean, shade: smallest to largest of {counts} {repetitions}"]
    if (table["event"] == "teleport").any():
        notes.append("triangle: teleport, hollow if it moved nothing")
    if "diverged" in str(remarks):
        notes.append("cross: a seed diverges next")
    page.footnote(figure, table, "; ".join(filter(None, [*notes, str(remarks)])))
