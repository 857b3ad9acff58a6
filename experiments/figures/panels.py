"""One panel of curves: mean and range of each method over seeds, marks of teleports, remarks on failures."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.configuration.tuned import NOT_TUNED, is_untuned
from experiments.errors import UserError, one_of
from experiments.figures import page, style
from experiments.figures.table import refuse_mixed_hardware

AXES = {"epoch": "epoch", "seconds": "seconds of training and teleports", "step": "step"}
SHORT_AXES = AXES | {"seconds": "seconds"}  # of narrow panels
SHADE, FEW_LINES = 0.18, 4
"""The opacity of the range of a line's seeds; half of it with more lines, whose ranges lie on each other."""
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


REPETITION = "repetition"
"""A column that tells apart the runs of one seed that are averaged before its seeds are, for instance over rates."""


@dataclass(frozen=True)
class Curve:
    """One line over its seeds; arrays have one value per evaluation."""

    x: np.ndarray  # mean over seeds; seeds differ only in seconds
    mean: np.ndarray  # nan from where a seed has diverged
    low: np.ndarray  # the smallest value of a seed, nan where the mean is
    high: np.ndarray  # the largest
    seeds: int
    runs: int
    diverged: int  # runs with a loss that is not finite
    early: int = 1  # evaluations before the end of the first epoch, at least that before the first step

    @property
    def last(self) -> int:
        """The number of the last evaluation before a seed diverged."""
        return int(np.isfinite(self.mean).nonzero()[0][-1])


def average(evaluations: pd.DataFrame, x: str, quantity: Quantity) -> Curve:
    """The ``quantity`` of one line over its seeds, per evaluation.

    If the rows have a column :data:`REPETITION`, a seed has the mean over its repetitions. A diverged run ends
    with a row that is not finite, at a step that no other run has; it is left out of the curve.
    """
    finite = np.isfinite(evaluations[["train_loss", quantity.column]].astype(float)).all(axis="columns")
    converged = evaluations[finite]
    run = ["seed", REPETITION] if REPETITION in evaluations else ["seed"]
    values = converged.pivot(index="step", columns=run, values=quantity.column).astype(float)
    runs = values.shape[1]
    if len(run) > 1:
        values = values.T.groupby(level="seed").agg(lambda of_seed: of_seed.mean(skipna=False)).T
    mean, low, high = (
        getattr(values, name)(axis="columns", skipna=False).to_numpy() for name in ("mean", "min", "max")
    )
    epochs = converged.groupby("step")["epoch"].mean()
    return Curve(
        x=converged.groupby("step")[x].mean().to_numpy(float),
        mean=mean,
        low=low,
        high=high,
        seeds=values.shape[1],
        runs=runs,
        diverged=len(evaluations.loc[~finite, run].drop_duplicates()),
        early=max(1, int((epochs < 1).sum())),
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
    """What is to be said about some panels, each remark once, with the panels that it is about unless these are all.

    Remarks of a ``kind`` are about panels of this kind.
    """

    def __init__(self) -> None:
        self._panels: dict[str, dict[str, None]] = {}
        self._groups: dict[str, dict[str, set[str]]] = {}
        self._told: dict[tuple[str, str], set[str]] = {}

    def panel(self, where: str, groups: Sequence[str], kind: str = "") -> None:
        """Let there be the panel ``where``, which is one of each of ``groups``."""
        self._panels.setdefault(kind, {})[where] = None
        for group in groups:
            self._groups.setdefault(kind, {}).setdefault(group, set()).add(where)

    def add(self, remark: str, where: str, kind: str = "") -> None:
        """Say ``remark`` about the panel ``where``."""
        self._told.setdefault((remark, kind), set()).add(where)

    def __str__(self) -> str:
        told = [(remark, self._named(where, kind)) for (remark, kind), where in self._told.items()]
        return "; ".join(f"{remark} ({where})" if where else remark for remark, where in told)

    def _named(self, wanted: set[str], kind: str) -> str:
        """The panels in their order, a group by its name if it is all of them; empty if they are all that there are."""
        panels, groups = list(self._panels.get(kind, {})), self._groups.get(kind, {})
        if wanted >= set(panels):
            return ", ".join(sorted(wanted.difference(panels)))
        names: dict[int, str] = {}
        left = set(wanted)
        for name, group in sorted(groups.items(), key=lambda item: -len(item[1])):
            if name and len(group) > 1 and left >= group:
                names[min(map(panels.index, group))] = name
                left -= group
        names |= {panels.index(panel): panel for panel in left if panel in panels}
        return ", ".join([*(names[place] for place in sorted(names)), *sorted(left.difference(panels))])


@dataclass(frozen=True)
class Drawn:
    """The lines of a panel."""

    axes: Axes
    x: str
    where: str  # its name in a remark
    kind: str  # of its quantity
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
    row: str,
) -> Drawn:
    """Draw the table of one data set, model and optimizer, with the column ``line`` of :func:`name_lines`.

    Runs without teleports are drawn last, so that they are visible on top of identical curves. Teleports are marked by
    :func:`experiments.figures.scales.finish`. What no line shows is added to ``remarks``, about the panel ``where`` of
    a ``row``.
    """
    remarks.panel(where, [row])
    drawn = Drawn(axes, x, f"{where} {quantity.name}".strip(), "loss" if quantity.loss else quantity.name, [])
    remarks.panel(drawn.where, [row, f"{row} {quantity.name}".strip(), where], drawn.kind)
    alpha = SHADE if table["line"].nunique() <= FEW_LINES else SHADE / 2
    for name in sorted(table["line"].unique(), key=lambda name: (name == "none", list(looks).index(name))):
        rows, look = table[table["line"] == name], looks[name]
        evaluations, teleports = rows[rows["event"] == "evaluation"], rows[rows["event"] == "teleport"]
        if len(evaluations):
            curve = average(evaluations, x, quantity)
            drawn.lines.append((look, curve, teleports))
            axes.plot(curve.x, curve.mean, color=look.color, linestyle=look.line, zorder=3)
            if curve.seeds > 1:
                axes.fill_between(curve.x, curve.low, curve.high, color=look.color, alpha=alpha, linewidth=0, zorder=2)
            if curve.diverged:
                remarks.add(f"{look.label} diverged in {curve.diverged} of {curve.runs} runs", where)
        still = teleports.groupby("seed")["moved_layers"].sum() == 0
        if still.any():
            count = "" if still.all() else f" in {still.sum()} of {len(still)} runs"
            remarks.add(f"{look.label} moved nothing{count}", where)
        for reason, failed in rows[rows["reason"] != ""].groupby("reason"):
            if is_untuned(reason):  # the reason names the pair, as the panel does
                remarks.add(f"{look.label}: {NOT_TUNED} yet", where)
                continue
            seeds = ", ".join(str(seed) for seed in failed["seed"])
            shortened = textwrap.shorten(reason, 160, placeholder=" ...")
            remarks.add(f"no result of {look.label}, seed {seeds}: {shortened}", where)
    return drawn


def legend(
    figure: page.Page, table: pd.DataFrame, looks: dict[str, style.Look], remarks: Remarks, repetitions: str = "seeds"
) -> None:
    """Draw the legend of the methods that have data, and the footnote with the ``repetitions`` and the remarks."""
    drawn = set(table.loc[table["event"] == "evaluation", "line"])
    page.legend(
        figure,
        [
            Line2D([], [], color=look.color, linestyle=look.line, label=look.label)
            for name, look in looks.items()
            if name in drawn or not drawn
        ],
    )
    seeds = sorted(set(table.groupby(["data", "model"])["seed"].nunique()))
    counts = " or ".join(map(str, seeds))
    notes = ["one seed" if seeds == [1] else f"line: mean, shade: smallest to largest of {counts} {repetitions}"]
    if (table["event"] == "teleport").any():
        notes.append("triangle: teleport, hollow if it moved nothing")
    if "diverged" in str(remarks):
        notes.append("cross: a seed diverges next, and the line ends")
    page.footnote(figure, table, "; ".join(filter(None, [*notes, str(remarks)])))
