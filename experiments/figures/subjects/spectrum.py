"""Spectra of layer inputs: the share of the energy in the leading eigenvectors of their Gram matrix, and the rest."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from experiments.errors import UserError, one_of
from experiments.figures import style
from experiments.figures.runs import FigureRun

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.figures.rebuilt import RebuiltRun

POINTS = 200
"""Of a curve: a spectrum of thousands of dimensions is thinned to about this number of points, evenly spaced."""

COLORS = (*style.PALETTE[:6], "#000000", "#8C6D31", "#7A7A7A")  # one for each of the paper's nine data sets
LEAST = 1e-10  # the smallest energy that is shown
LINES = {"trained": "-", "init": (0, (2, 1.5))}
STATES = {"trained": "trained", "init": "at initialisation"}


def measure_spectrum(run: FigureRun, *, layers: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The cumulative energy of a layer's inputs over one teleport batch, for the trained and the initial model.

    Args:
        run: the run whose models are measured.
        layers: model -> the name of a layer's weight; for other models the second layer in the order of use is taken.

    Returns:
        rows ``state`` (``trained`` or ``init``), ``layer``, ``dimension`` of its input vectors, including the 1 of a
        folded bias, number of ``positions``, ``index`` of the eigenvector from 1, its ``share`` of the dimension,
        ``energy`` of the eigenvectors up to it as a share of the total, and the ``rest`` to 1, without rounding.

    Raises:
        UserError: the model has no such layer.
    """
    from experiments.figures.rebuilt import rebuild

    rebuilt = rebuild(run)
    wanted = (layers or {}).get(rebuilt.config.model.name)
    frames = [_of_state(rebuilt, "init", wanted)]
    rebuilt.load_trained()
    return pd.concat([_of_state(rebuilt, "trained", wanted), *frames], ignore_index=True)


def _of_state(rebuilt: RebuiltRun, state: str, wanted: str | None) -> pd.DataFrame:
    from teleport import representations

    batch = rebuilt.teleport_batch(rebuilt.config.model.teleport_samples)
    found = representations(rebuilt.model, [batch], rebuilt.loss_fn)
    names = list(found)
    if wanted is None and len(names) < 2:
        raise UserError(f"the measure 'spectrum' needs a second layer, which model '{rebuilt.config.model.name}' lacks")
    name = names[1] if wanted is None else wanted
    if name not in found:
        raise one_of(f"layer of the model '{rebuilt.config.model.name}'", name, names)
    representation = found[name]
    rows = cumulative_energy(representation.spectrum(), representation.dimension)
    labels = {
        "state": state,
        "layer": name,
        "dimension": representation.dimension,
        "positions": representation.positions,
    }
    for place, (column, value) in enumerate(labels.items()):
        rows.insert(place, column, value)
    return rows


def cumulative_energy(spectrum: Tensor, dimension: int) -> pd.DataFrame:
    """``index``, ``share``, ``energy`` and ``rest`` of squared singular values, thinned to about ``POINTS`` rows.

    Args:
        spectrum: [groups, k] descending; groups are averaged. Values past ``k`` are zero.
        dimension: of the input vectors, at least ``k``.
    """
    energies = np.zeros(dimension)
    energies[: spectrum.shape[1]] = spectrum.mean(0).cpu().numpy()
    # Summed from the smallest value up, which avoids cancellation.
    rest = np.append(np.cumsum(energies[::-1])[::-1][1:], 0.0) / energies.sum()
    step = max(1, dimension // POINTS)
    index = np.unique(np.append(np.arange(0, dimension, step), dimension - 1))
    return pd.DataFrame(
        {"index": index + 1, "share": (index + 1) / dimension, "energy": 1.0 - rest[index], "rest": rest[index]}
    )


def draw_spectrum(table: pd.DataFrame, title: str) -> Figure:
    """Left the cumulative energy against the share of eigenvectors; right the remaining energy, on a log axis.

    Args:
        table: rows of :func:`measure_spectrum`.
        title: of the whole picture.
    """
    figure = style.page(title, 3.6)
    held, left, names = figure.subplots(1, 3, width_ratios=(1, 1, 0.62))
    measured, failed = table[table["reason"] == ""], table[table["reason"] != ""]
    handles = []
    for color, (_, rows) in zip(cycle(COLORS), measured.groupby(["data", "model"], sort=False), strict=False):
        for state, spectrum in rows.groupby("state", sort=False):
            look = {"color": color, "linestyle": LINES[state], "linewidth": 1.4 if state == "trained" else 0.9}
            held.plot(spectrum["share"], spectrum["energy"], **look)
            left.plot(
                spectrum["share"], spectrum["rest"].clip(lower=LEAST / 10), **look
            )  # values of 0 are below the axis
        handles.append(Line2D([], [], color=color, label=_name(rows.iloc[0])))
    for state in measured["state"].unique():
        handles.append(Line2D([], [], color=style.GRAY, linestyle=LINES[state], label=STATES[state]))
    held.set_ylabel("cumulative energy")
    left.set_ylabel("energy left")
    left.set_yscale("log")
    left.set_ylim(LEAST, 1.5)
    for axes in (held, left):
        axes.set_xlabel("share of eigenvectors, largest first")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlim(-0.01, 1.01)
    held.set_ylim(top=1.01)
    names.legend(handles=handles, loc="upper left", fontsize=6, borderaxespad=0)
    names.set_axis_off()
    reasons = [f"{style.label(style.DATA, row.data)}: {row.reason}" for row in failed.itertuples()]
    if reasons:
        text = "\n".join(textwrap.fill(reason, 40, max_lines=4, placeholder=" ...") for reason in reasons)
        held.text(0.98, 0.03, text, transform=held.transAxes, ha="right", va="bottom", fontsize=5.5, color=style.GRAY)
    style.footnote(figure, table, "inputs of one teleport batch; d counts the 1 that a bias appends")
    return figure


def _name(row: pd.Series) -> str:
    """``CIFAR-10, CNN`` and, below, the layer and the dimension of its inputs."""
    data, model = style.label(style.DATA, row["data"]), style.label(style.MODELS, row["model"])
    return f"{data}, {model}\n  {row['layer'].removesuffix('.weight')}, d = {int(row['dimension'])}"
