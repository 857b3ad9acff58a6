"""The seconds of a teleport along each axis of its size, as measured by ``scripts/benchmark.py runtime``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from experiments.errors import UserError
from experiments.figures import page, style
from experiments.figures.runs import FigureRun


def measure_runtime(run: FigureRun | None, *, folder: str) -> pd.DataFrame:
    """The benchmark's cases along each axis, all other settings at their base.

    Args:
        run: none; the figure has no runs.
        folder: the folder of the benchmark's tables, one per machine.

    Returns:
        rows ``axis``, its ``value``, ``method``, ``seconds`` (median), ``fastest``, ``slowest``, ``steps_taken`` and
        ``null_dimensions`` as measured; ``exponent``, the slope of log seconds over log value for that method over the
        cases with steps, empty if there are fewer than two; and the base, one column per axis.

    Raises:
        UserError: there is no table, or one that is not the benchmark's.
    """
    tables = [path for path in sorted(Path(folder).glob("runtime-*.csv")) if not path.stem.endswith("-smoke")]
    if not tables:
        raise UserError(f"no 'runtime-*.csv' in '{folder}'; measure first: python scripts/benchmark.py runtime")
    return pd.concat([_along_axes(_read(path)) for path in tables], ignore_index=True)


def _read(path: Path) -> pd.DataFrame:
    from experiments.benchmarks.runtime import COLUMNS

    table = pd.read_csv(path)
    missing = [column for column in COLUMNS if column not in table]
    if missing or table.empty:
        lack = f"the column '{missing[0]}'" if missing else "rows"
        raise UserError(f"'{path}' lacks {lack}; measure again: python scripts/benchmark.py runtime")
    return table


def _along_axes(table: pd.DataFrame) -> pd.DataFrame:
    """One machine's cases along each axis that is varied, all other settings at their base."""
    from experiments.benchmarks import runtime
    from experiments.benchmarks.common import base_of

    base, fits = base_of(table, runtime.AXES), runtime.exponents(table)
    columns = ["method", "seconds", "fastest", "slowest", "steps_taken", "null_dimensions"]
    frames = []
    for axis, of_axis in fits.groupby("axis", sort=False):
        others = base.drop(axis)
        along = table[(table[others.index.tolist()] == others).all(axis=1)]
        frame = along[columns].assign(exponent=along["method"].map(of_axis.set_index("method")["slope"]), **base)
        frame.insert(0, "axis", axis)
        frame.insert(1, "value", along[axis])
        frames.append(frame)
    first = table.iloc[0]
    threads = f"{first['threads']} thread" + ("s" if first["threads"] != 1 else "")
    return pd.concat(frames, ignore_index=True).assign(
        hardware=f"{first['hardware']}, {threads}, torch {first['torch']}"
    )


AXES = {
    "width": ("width", "d"),
    "samples": ("samples", "n"),
    "layers": ("hidden layers", "\N{SCRIPT SMALL L}"),
    "batches": ("batches", "b"),
    "steps": ("steps", "k"),
}
"""Axis -> its name and its letter in the paper."""

METHODS = {
    "nullspace": style.Look("null space", style.METHODS["nullspace"].color),
    "nullspace 0.999": style.Look("null space, threshold 0.999", style.PALETTE[5], ":"),
    "symmetry 2022": style.METHODS["symmetry_2022"],
    "symmetry 2024": style.METHODS["symmetry"],
    "symmetry corrected": style.METHODS["symmetry_corrected"],
}


def draw_runtime(table: pd.DataFrame, title: str) -> page.Page:
    """One panel per axis, both scales logarithmic, with the exponent of each method; one row per machine.

    Points are medians, bars extend from the fastest to the slowest round. A case without steps is hollow and excluded
    from the exponent, since its seconds are not those of a teleport.

    Args:
        table: rows of :func:`measure_runtime`.
        title: of the whole picture.
    """
    machines, axes = list(table["hardware"].unique()), [axis for axis in AXES if axis in set(table["axis"])]
    names = list(table["method"].unique())
    looks = style.looks(names) | {name: METHODS[name] for name in names if name in METHODS}
    figure = page.start(title, 2.5 * len(machines))
    grid = figure.subplots(len(machines), len(axes), squeeze=False, sharey="row")
    for machine, line in zip(machines, grid, strict=True):
        for axis, panel in zip(axes, line, strict=True):
            chosen = table[(table["hardware"] == machine) & (table["axis"] == axis)]
            _panel(panel, chosen, looks, AXES[axis][1])
            panel.set_xlabel(" ".join(AXES[axis]))
        line[0].set_ylabel("seconds of a teleport")
        low, high = line[0].get_ylim()
        line[0].set_ylim(low, high * (high / low) ** 0.45)  # room for the exponents
    handles = [Line2D([], [], color=look.color, linestyle=look.line, label=look.label) for look in looks.values()]
    page.legend(figure, handles)
    base = ", ".join(f"{letter} = {table[axis].iloc[0]}" for axis, (_, letter) in AXES.items())
    page.footnote(
        figure,
        table,
        f"median of the rounds, bars from fastest to slowest; all else at {base}; "
        "hollow: no step taken, nothing was free; powers: fitted to the others",
    )
    return figure


def _panel(axes: Axes, table: pd.DataFrame, looks: dict[str, style.Look], letter: str) -> None:
    """One line per method, and the exponents of ``letter`` in the colours and order of the methods."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    powers = []
    for method, rows in table.groupby("method", sort=False):
        look, rows = looks[str(method)], rows.sort_values("value")
        seconds = rows["seconds"]
        spread = [seconds - rows["fastest"], rows["slowest"] - seconds]
        axes.errorbar(rows["value"], seconds, yerr=spread, color=look.color, linestyle=look.line, elinewidth=0.6)
        for _, point in rows.iterrows():
            face = look.color if point["steps_taken"] else "white"
            mark = {"markersize": 3.2, "markeredgewidth": 0.7, "color": look.color, "markerfacecolor": face}
            axes.plot(point["value"], point["seconds"], "o", zorder=4, **mark)
        exponent = "?" if rows["exponent"].isna().any() else f"{rows['exponent'].iloc[0]:.2f}"
        powers.append(Line2D([], [], color=look.color, linestyle=look.line, label=f"{letter}$^{{{exponent}}}$"))
    axes.legend(handles=powers, loc="upper left", fontsize=6.5, handlelength=1.8, borderaxespad=0.2, labelspacing=0.25)
    axes.tick_params(axis="x", labelsize=5.5)
    axes.xaxis.set_major_locator(FixedLocator(sorted(table["value"].unique())))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
