"""How long a teleport takes along each axis of its size."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from experiments.figures import style

AXES = {
    "width": ("width", "d"),
    "samples": ("samples", "n"),
    "layers": ("hidden layers", "l"),
    "batches": ("batches", "b"),
    "steps": ("steps", "k"),
}
"""Axis -> its name and the paper's letter."""

METHODS = {
    "nullspace": style.Look("null space", style.METHODS["nullspace"].color),
    "nullspace 0.999": style.Look("null space, threshold 0.999", style.METHODS["nullspace"].color, ":"),
    "symmetry 2022": style.METHODS["symmetry_2022"],
    "symmetry 2024": style.METHODS["symmetry"],
    "symmetry corrected": style.METHODS["symmetry_corrected"],
}


def draw_runtime(table: pd.DataFrame, title: str) -> Figure:
    """A panel for each axis, both scales logarithmic, with the exponent of each method; a row for each machine.

    Medians, with a bar from the fastest to the slowest round. A point where no step was taken is hollow, and the
    exponent leaves it out: what had nothing to do was not fast.

    Args:
        table: rows of ``measure/runtime.py``.
        title: of the whole picture.
    """
    machines, axes = list(table["hardware"].unique()), [axis for axis in AXES if axis in set(table["axis"])]
    names = list(table["method"].unique())
    looks = style.looks(names) | {name: METHODS[name] for name in names if name in METHODS}
    figure = style.page(title, 2.3 * len(machines) + 0.9)
    grid = figure.subplots(len(machines), len(axes), squeeze=False, sharey="row")
    for machine, line in zip(machines, grid, strict=True):
        for axis, panel in zip(axes, line, strict=True):
            chosen = table[(table["hardware"] == machine) & (table["axis"] == axis)]
            _panel(panel, chosen, looks, AXES[axis][1])
            panel.set_xlabel(" ".join(AXES[axis]))
        line[0].set_ylabel("seconds of a teleport")
        low, high = line[0].get_ylim()
        line[0].set_ylim(low, high * (high / low) ** 0.3)  # room for the exponents
    handles = [Line2D([], [], color=look.color, linestyle=look.line, label=look.label) for look in looks.values()]
    style.legend(figure, handles)
    base = ", ".join(f"{letter} = {table[axis].iloc[0]}" for axis, (_, letter) in AXES.items())
    style.footnote(
        figure,
        table,
        f"median of the rounds, bars from fastest to slowest; all else at {base}; "
        "hollow: no step taken, nothing was free; powers: fitted to the others, in the order of the names",
    )
    return figure


def _panel(axes: Axes, table: pd.DataFrame, looks: dict[str, style.Look], letter: str) -> None:
    """One line a method, and the methods' exponents of the axis' ``letter``, in their colours and order."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    for number, (method, rows) in enumerate(table.groupby("method", sort=False)):
        look, rows = looks[str(method)], rows.sort_values("value")
        seconds = rows["seconds"]
        spread = [seconds - rows["fastest"], rows["slowest"] - seconds]
        axes.errorbar(rows["value"], seconds, yerr=spread, color=look.color, linestyle=look.line, elinewidth=0.6)
        for _, point in rows.iterrows():
            face = look.color if point["steps_taken"] else "white"
            mark = {"markersize": 3.2, "markeredgewidth": 0.7, "color": look.color, "markerfacecolor": face}
            axes.plot(point["value"], point["seconds"], "o", zorder=4, **mark)
        exponent = "?" if rows["exponent"].isna().any() else f"{rows['exponent'].iloc[0]:.2f}"
        place = {"transform": axes.transAxes, "ha": "left", "va": "top", "fontsize": 6.5, "in_layout": False}
        axes.text(0.04, 0.98 - 0.07 * number, f"{letter}$^{{{exponent}}}$", color=look.color, **place)
    axes.tick_params(axis="x", labelsize=5.5)
    axes.xaxis.set_major_locator(FixedLocator(sorted(table["value"].unique())))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
