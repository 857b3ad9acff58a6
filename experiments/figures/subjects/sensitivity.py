"""How much the effect of teleports depends on their settings: one varied at a time, and all in a random design."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from omegaconf import OmegaConf
from scipy import stats

from experiments.errors import one_of
from experiments.figures import page, style
from experiments.figures.arms import rounded
from experiments.figures.intervals import CONFIDENCE, mean_interval
from experiments.figures.runs import FigureRun, partner
from experiments.figures.table import refuse_mixed_hardware
from experiments.run.runs import load_table

RATE = "optimizer.lr"

NONE, ALL = "usual", "all"
"""Of the column ``varied``: the usual settings, and a run of the random design."""


def measure_sensitivity(run: FigureRun, *, settings: Mapping[str, str]) -> pd.DataFrame:
    """The losses of a run relative to those of the same run without teleports.

    At equal epochs both are at their end. At equal seconds the control is at its end, and the loss of ``run`` is
    interpolated between evaluations in its logarithm. A run that diverged has the loss that it started from.

    Args:
        run: with teleports, or a control, which has losses and seconds alone.
        settings: name of a setting -> its key in the configuration.

    Returns:
        one row: ``varied`` (the setting that the figure varies in this run, :data:`ALL` of several, :data:`NONE` of
        none), the value of each setting, ``train_loss`` and ``test_loss`` at the end, ``seconds``, ``epochs_ratio`` and
        ``seconds_ratio`` (training loss / that of the control), ``test_ratio`` (at equal epochs), and ``kept``: the
        share of teleport batches whose weights were moved.

    Raises:
        UserError: the figure has no control of the run, or a table of a run cannot be read.
    """
    assert run.folder is not None
    curve = load_table(run.folder, "curve")
    varied = [name for name, key in settings.items() if key in run.labels]
    row: dict[str, Any] = {"varied": varied[0] if len(varied) == 1 else ALL if varied else NONE}
    row |= {name: _cell(OmegaConf.select(run.config, key)) for name, key in settings.items()}
    row |= {"train_loss": _end(curve, "train_loss"), "test_loss": _end(curve, "test_loss")}
    row["seconds"] = float(curve["seconds"].iloc[-1])
    if run.labels["teleport"] != "none":
        control = partner(run, teleport="none")
        assert control.folder is not None
        row |= ratios(curve, load_table(control.folder, "curve"))
        batches = load_table(run.folder, "teleports")
        row["kept"] = float((batches["accepted"].astype(bool) & (batches["steps"] > 0)).mean()) if len(batches) else 0.0
    return pd.DataFrame([row])


def _cell(value: Any) -> Any:
    return str(value) if OmegaConf.is_config(value) else value


def ratios(curve: pd.DataFrame, control: pd.DataFrame) -> dict[str, float]:
    """``epochs_ratio``, ``seconds_ratio`` and ``test_ratio`` of two curves, see :func:`measure_sensitivity`."""
    other, at = _end(control, "train_loss"), float(control["seconds"].iloc[-1])
    if np.isfinite(curve["train_loss"].to_numpy(float)).all():
        then = float(np.exp(np.interp(at, curve["seconds"], np.log(curve["train_loss"]))))
    else:
        then = _end(curve, "train_loss")
    return {
        "epochs_ratio": _end(curve, "train_loss") / other,
        "seconds_ratio": then / other,
        "test_ratio": _end(curve, "test_loss") / _end(control, "test_loss"),
    }


def _end(curve: pd.DataFrame, quantity: str) -> float:
    """The last value, or the first one of a run that diverged."""
    diverged = not np.isfinite(curve["train_loss"].to_numpy(float)).all()
    return float(curve[quantity].iloc[0 if diverged else -1])


def by_level(rows: pd.DataFrame, setting: str, ratio: str) -> pd.DataFrame:
    """The effect at each value of one setting, with the others as usual.

    Args:
        rows: of :func:`measure_sensitivity` at one rate, without failed runs.
        setting: its name.
        ratio: the column of the effect.

    Returns:
        rows ``level``, ``effect``, ``low``, ``high``, ``seeds``, ``kept`` in the order of the levels. The effect is the
        geometric mean of the ratio less 1, with its 95 % interval over seeds.
    """
    with_teleports = rows[rows[ratio].notna() & rows["varied"].isin([NONE, setting])]
    found = []
    for level, here in with_teleports.groupby(setting):
        effect, low, high = (float(np.expm1(value)) for value in mean_interval(np.log(here[ratio])))
        found.append(
            {
                "level": level,
                "effect": effect,
                "low": low,
                "high": high,
                "seeds": len(here),
                "kept": here["kept"].mean(),
            }
        )
    return pd.DataFrame(sorted(found, key=lambda row: _order(row["level"])))


def main_effects(rows: pd.DataFrame, settings: Sequence[str], ratio: str) -> pd.DataFrame:
    """What each setting contributes in the random design, by an additive model of the logarithm of the ratio.

    The response of a point of the design is its mean over seeds. A setting enters by the rank of its level, scaled to
    an interval of length 1; a schedule by the number of its events. Least squares with an intercept, intervals by
    Student's t with the residual degrees of freedom.

    Args:
        rows: of :func:`measure_sensitivity` at one rate, without failed runs.
        settings: their names.
        ratio: the column of the effect.

    Returns:
        rows ``setting``, ``effect``, ``low``, ``high``: the relative change of the ratio from a setting's lowest to its
        highest level, all others equal. No rows without more points than settings, or if these cannot be told apart.
    """
    design = rows[(rows["varied"] == ALL) & rows[ratio].notna()]
    points = np.log(design[ratio]).groupby([design[name] for name in settings]).mean()
    levels = pd.DataFrame(points.index.to_list(), columns=list(settings))
    columns = [np.ones(len(points)), *(_ranks(levels[name]) for name in settings)]
    matrix, degrees = np.column_stack(columns), len(points) - len(settings) - 1
    if degrees < 1 or np.linalg.matrix_rank(matrix) < matrix.shape[1]:
        return pd.DataFrame()
    solution = np.linalg.lstsq(matrix, points.to_numpy(), rcond=None)[0]
    residuals = points.to_numpy() - matrix @ solution
    covariance = np.linalg.inv(matrix.T @ matrix) * (residuals @ residuals) / degrees
    half = stats.t.ppf((1 + CONFIDENCE) / 2, degrees) * np.sqrt(np.diag(covariance))
    ends = np.expm1(np.column_stack([solution, solution - half, solution + half]))[1:]
    return pd.DataFrame(
        [
            {"setting": name, "effect": effect, "low": low, "high": high}
            for name, (effect, low, high) in zip(settings, ends.tolist(), strict=True)
        ]
    )


def _ranks(levels: pd.Series) -> np.ndarray:
    """The rank of each level among those that occur, from 0 to 1."""
    amounts = levels.map(_order)
    known = sorted(set(amounts))
    return np.array([known.index(amount) / max(len(known) - 1, 1) for amount in amounts])


def _order(level: Any) -> tuple[float, ...]:
    """Numbers by value; the epochs of a schedule, written as a list, by their number and then by the epochs."""
    if not isinstance(level, str):
        return (float(level),)
    epochs = [float(epoch) for epoch in level.strip("[]").split(",") if epoch.strip()]
    return (float(len(epochs)), *epochs)


RATIOS = {
    "epochs_ratio": ("at equal epochs", style.PALETTE[0], -0.12),
    "seconds_ratio": ("at equal seconds", style.PALETTE[1], 0.12),
}
"""Column -> its words, its colour, and its place beside the level."""
FEW_KEPT = 0.5


def draw_sensitivity(table: pd.DataFrame, title: str, *, settings: Sequence[str]) -> page.Page:
    """One row of panels per rate, one panel per setting; below, the main effects of the random design.

    Args:
        table: rows of :func:`measure_sensitivity`.
        title: of the whole picture.
        settings: names, in the order of the panels.

    Raises:
        UserError: a setting is not in the table, or seconds were measured on several machines.
    """
    for name in settings:
        if name not in table:
            raise one_of("setting of the drawing 'sensitivity'", name, list(table.columns))
    refuse_mixed_hardware(table)
    rows = table[table["reason"] == ""]
    rates = list(rows[RATE].unique())
    figure = page.start(title, 1.35 * len(rates) + 1.5)
    grid = figure.add_gridspec(len(rates) + 1, len(settings), height_ratios=[*[1.0] * len(rates), 0.9])
    for number, rate in enumerate(rates):
        first = None
        for column, name in enumerate(settings):
            axes = figure.add_subplot(grid[number, column], sharey=first)
            _panel(axes, rows[rows[RATE] == rate], name)
            axes.tick_params(labelleft=first is None)
            first = first or axes
            if number == 0:
                axes.set_title(name)
        assert first is not None
        _scale(first)
        first.set_ylabel(f"rate {rate:g}\nloss / loss without", fontsize=6.5)
    designed = list(rows.loc[rows["varied"] == ALL, RATE].unique())
    edges = np.linspace(0, len(settings), len(designed) + 1).round().astype(int)
    for rate, start, end in zip(designed, edges, edges[1:], strict=False):
        axes = figure.add_subplot(grid[-1, start:end])
        _effects(axes, rows[rows[RATE] == rate], settings)
        axes.set_title(f"random design, rate {rate:g}")
    handles = [
        Line2D([], [], color=color, marker="o", markersize=2.5, linewidth=0.8, label=words)
        for words, color, _ in RATIOS.values()
    ]
    page.legend(figure, handles)
    counts = sorted(set(rows[rows["varied"] != ALL].groupby(RATE)["seed"].nunique()))
    page.footnote(figure, table, "; ".join(_notes(rows, table, counts)))
    return figure


def _notes(rows: pd.DataFrame, table: pd.DataFrame, counts: Sequence[int]) -> list[str]:
    notes = [
        f"mean and 95 % interval over seeds ({' or '.join(map(str, counts))}), one setting varied at a time",
        f"hollow: less than {FEW_KEPT:.0%} of the batches moved anything",
        "below: an additive model of the random design, from a setting's lowest level to its highest",
    ]
    failed = table[table["reason"] != ""]
    return [*notes, f"{len(failed)} runs have no result: {failed['reason'].iloc[0]}"] if len(failed) else notes


def _panel(axes: Axes, rows: pd.DataFrame, setting: str) -> None:
    for ratio, (_, color, shift) in RATIOS.items():
        levels = by_level(rows, setting, ratio)
        for place, level in enumerate(levels.itertuples()):
            mean, low, high = (rounded(1 + value) for value in (level.effect, level.low, level.high))
            if np.isfinite([low, high]).all():
                axes.plot([place + shift] * 2, [low, high], color=color, linewidth=0.8)
            face = color if level.kept >= FEW_KEPT else "white"
            axes.plot(place + shift, mean, "o", color=color, mfc=face, markersize=2.8, markeredgewidth=0.7)
        names = [_words(level) for level in levels["level"]] if len(levels) else []
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=5.5)
        axes.set_xlim(-0.5, max(len(names), 1) - 0.5)
    axes.axhline(1.0, color=style.GRAY, linewidth=0.8, linestyle="--")


def _words(level: Any) -> str:
    return level.strip("[]").replace(" ", "") if isinstance(level, str) else f"{level:.8g}"


def _effects(axes: Axes, rows: pd.DataFrame, settings: Sequence[str]) -> None:
    for ratio, (_, color, shift) in RATIOS.items():
        for place, effect in enumerate(main_effects(rows, settings, ratio).itertuples()):
            low, mean, high = (rounded(1 + value) for value in (effect.low, effect.effect, effect.high))
            axes.plot([low, high], [place + shift] * 2, color=color, linewidth=0.8)
            axes.plot(mean, place + shift, "o", color=color, markersize=2.8)
    axes.axvline(1.0, color=style.GRAY, linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(settings)), settings, fontsize=6)
    axes.set_ylim(len(settings) - 0.5, -0.5)
    axes.set_xscale("log")
    _few_ticks(axes.xaxis)
    axes.set_xlabel("loss at the highest level / at the lowest", fontsize=6.5)


TICKS = {12: (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), 60: (1.0, 2.0, 5.0)}
"""Ratio of the ends of an axis -> its ticks within a decade, up to this ratio."""


def _scale(axes: Axes) -> None:
    axes.set_yscale("log")
    _few_ticks(axes.yaxis)


def _few_ticks(axis: Axis) -> None:
    """Ticks at factors that can be read: the more within a decade, the fewer decades there are."""
    low, high = axis.get_view_interval()
    subs = next((subs for ratio, subs in TICKS.items() if high < ratio * low), (1.0,))
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
