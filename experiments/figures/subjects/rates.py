"""The loss at the end of a training by its learning rate, one panel per data set, model and optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from experiments.errors import UserError
from experiments.figures import page, scales, style
from experiments.figures.arms import rounded
from experiments.figures.intervals import mean_interval
from experiments.figures.runs import FigureRun
from experiments.figures.subjects.curves import measure_curves

RATE = "optimizer.lr"
PANEL = ["data", "model.widths", "model", "optimizer"]
LONGER = "longer"
"""The line of the runs without teleports at the epoch after the end of the others."""

LINES = {
    "none": style.METHODS["none"],
    LONGER: style.Look("no teleport, one epoch more", style.GRAY, ":"),
    "gentle": style.METHODS["gentle"],
    "random_gentle": style.METHODS["random_gentle"],
}
COLUMNS = 3


def measure_rates(run: FigureRun, *, epochs: Sequence[int]) -> pd.DataFrame:
    """The recorded losses of a run at the ends of some epochs.

    Args:
        run: the run; it is evaluated at each epoch.
        epochs: those that are kept, as far as the run has them.

    Raises:
        UserError: a table of the run cannot be read, or the run has none of the epochs.
    """
    rows = measure_curves(run)
    kept = rows[(rows["event"] == "evaluation") & rows["epoch"].isin(epochs)]
    last = rows[rows["event"] == "evaluation"].tail(1)
    if kept.empty and np.isfinite(last["train_loss"]).all():
        raise UserError(f"the run ends at epoch {last['epoch'].item():g}, before the epochs of the measurement 'rates'")
    return last if kept.empty else kept  # a run that diverged has its last evaluation


def compared(table: pd.DataFrame, quantity: str = "train_loss", longer: float = 1.0) -> pd.DataFrame:
    """Gentle teleports against each control, paired by seed: ``gentle / control - 1`` with its 95 % interval.

    The interval is Student's t for the mean logarithm of the ratio. A rate is named by its place among the rates of the
    panel; ``best`` compares the best rate of each side.

    Args:
        table: rows of :func:`measure_rates`.
        quantity: ``train_loss`` or ``test_loss``.
        longer: epochs by which the control that trains longer does so, at most 1: as many as the teleports cost. Its
            loss is interpolated in the logarithm between the epochs.

    Raises:
        UserError: the table is not one of rates.

    Returns:
        rows ``data, model.widths, model, optimizer, rate, against, seeds, effect, low, high, lower`` (seeds at which
        the loss is lower with teleports).
    """
    found = []
    for panel, rows in _shortened(_lines(table), quantity, longer).groupby(PANEL, sort=False, dropna=False):
        means = rows.groupby(["line", RATE], sort=False)[quantity].mean()
        known = set(means.index.get_level_values("line"))
        for line in (name for name in LINES if name != "gentle" and {name, "gentle"} <= known):
            rates = [(f"{rate:g}", rate, rate) for rate in sorted(set(means["gentle"].index) & set(means[line].index))]
            if len(means[line]) > 1:
                rates.append(("best", means["gentle"].idxmin(), means[line].idxmin()))
            for name, own, other in rates:
                sides = [
                    rows[(rows["line"] == side) & (rows[RATE] == rate)].set_index("seed")[quantity]
                    for side, rate in (("gentle", own), (line, other))
                ]
                ratios = np.log(sides[0] / sides[1]).dropna()
                effect = {"rate": name, "against": line, **_interval(ratios.to_numpy())}
                found.append(dict(zip(PANEL, panel, strict=True)) | effect)
    return pd.DataFrame(found)


def _shortened(rows: pd.DataFrame, quantity: str, longer: float) -> pd.DataFrame:
    """The rows, with the control that trains longer ended earlier."""
    keys, last = [*PANEL, RATE, "seed"], rows["line"] == LONGER
    at_end = rows.loc[rows["line"] == "none", [*keys, quantity]]
    before = rows.loc[last, keys].merge(at_end, how="left", on=keys)[quantity].to_numpy(float)
    rows.loc[last, quantity] = before ** (1 - longer) * rows.loc[last, quantity].to_numpy(float) ** longer
    return rows


def draw_rates(table: pd.DataFrame, title: str) -> page.Page:
    """Mean and standard deviation of the training loss over seeds, by rate; one line per method.

    Args:
        table: rows of :func:`measure_rates`, of runs with and without gentle teleports and of random moves.
        title: of the whole picture.
    """
    rows = _lines(table)
    panels = rows[PANEL].drop_duplicates().to_dict("records")
    lines = -(-len(panels) // COLUMNS)
    figure = page.start(title, 0.3 + 1.45 * lines)
    axes = figure.subplots(lines, COLUMNS, squeeze=False).flatten()
    for panel, each in zip(panels, axes, strict=False):
        here = rows[(rows[PANEL].fillna("") == pd.Series(panel).fillna("")).all(axis=1)]
        _panel(each, here)
        network = f"{style.label(style.MODELS, panel['model'])} {style.sizes(panel['model.widths'])}".strip()
        optimizer = style.label(style.OPTIMIZERS, panel["optimizer"])
        each.set_title(f"{style.label(style.DATA, panel['data'])}, {network}, {optimizer}", fontsize=6)
    for each in axes[len(panels) :]:
        each.set_axis_off()
    for number in range(0, len(panels), COLUMNS):
        axes[number].set_ylabel("training loss")
    for each in axes[max(0, len(panels) - COLUMNS) : len(panels)]:
        each.set_xlabel("learning rate")
    handles = [
        Line2D([], [], color=look.color, linestyle=look.line, marker="o", markersize=2.5, label=look.label)
        for name, look in LINES.items()
        if name in set(rows["line"])
    ]
    page.legend(figure, handles)
    counts = sorted(set(rows.groupby(PANEL, dropna=False)["seed"].nunique()))
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    page.footnote(figure, table, f"mean and standard deviation over {seeds} seeds; the middle rate is the tuned one")
    return figure


def _lines(table: pd.DataFrame) -> pd.DataFrame:
    """The finished runs' rows, named by line; the epoch of runs with teleports is the end."""
    missing = {RATE, "model.widths", "epoch", "train_loss"} - set(table)
    if missing:
        raise UserError(f"only a figure of rates can be compared by rate, but this table lacks '{min(missing)}'")
    rows = table[table["reason"] == ""].copy()
    end = rows.loc[rows["teleport"] != "none", "epoch"].max()
    rows["line"] = np.where((rows["teleport"] == "none") & (rows["epoch"] > end), LONGER, rows["teleport"])
    return rows[(rows["epoch"] >= end) | ~np.isfinite(rows["train_loss"])].copy()


def _interval(ratios: np.ndarray) -> dict[str, float]:
    ends = (float(np.expm1(value)) for value in mean_interval(ratios))
    effect = dict(zip(("effect", "low", "high"), ends, strict=True))
    return {"seeds": len(ratios), **effect, "lower": int((ratios < 0).sum())}


def _panel(axes: Axes, rows: pd.DataFrame) -> None:
    rates = sorted(rows[RATE].unique())
    for number, (name, look) in enumerate(LINES.items()):
        of_line = rows[(rows["line"] == name) & np.isfinite(rows["train_loss"])]
        if of_line.empty:
            continue
        values = of_line.groupby(RATE)["train_loss"].agg(["mean", "std"]).sort_index()
        values = values.map(rounded)
        shift = (0.97, 0.99, 1.01, 1.03)[number]  # so that the bars do not cover each other
        axes.errorbar(
            values.index * shift, values["mean"], values["std"].fillna(0.0), color=look.color, linestyle=look.line,
            marker="o", markersize=2.5, capsize=1.5, linewidth=1.0, elinewidth=0.6,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    scales.logarithmic(axes, *axes.get_ylim())
    axes.xaxis.set_major_locator(FixedLocator(rates))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
