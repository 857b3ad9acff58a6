"""Spectra of layer inputs: the share of the energy in the leading eigenvectors of their Gram matrix, and the rest."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from experiments.errors import UserError, one_of
from experiments.figures import page, style
from experiments.figures.runs import FigureRun

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.figures.rebuilt import RebuiltRun

POINTS = 200
"""Of a curve: a spectrum of thousands of dimensions is thinned to about this number of points, evenly spaced."""

KINDS = {"mlp": "fully connected", "cnn": "convolutional", "resnet": "convolutional", "transformer": "transformers"}
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


def draw_spectrum(table: pd.DataFrame, title: str) -> page.Page:
    """One column per kind of network: above the cumulative energy by the share of eigenvectors, below what is left.

    Args:
        table: rows of :func:`measure_spectrum`.
        title: of the whole picture.
    """
    measured, failed = table[table["reason"] == ""], table[table["reason"] != ""]
    kinds = measured["model"].map(lambda model: KINDS.get(model, style.label(style.MODELS, model)))
    figure = page.start(title, 3.9)
    columns = figure.subplots(2, max(1, kinds.nunique()), squeeze=False, sharex=True, sharey="row").T
    for (held, left), (kind, of_kind) in zip(columns, measured.groupby(kinds, sort=False), strict=False):
        held.set_title(kind)
        handles = []
        spectra = of_kind.groupby(["data", "model"], sort=False)
        for number, (color, (_, rows)) in enumerate(zip(cycle(style.PALETTE), spectra, strict=False)):
            wide = 1.2 + 1.1 * (spectra.ngroups - 1 - number)  # a curve below the next one stays visible beside it
            for state, spectrum in rows.groupby("state", sort=False):
                look = {"color": color, "linestyle": LINES[state], "linewidth": wide if state == "trained" else 0.9}
                held.plot(spectrum["share"], spectrum["energy"], **look)
                # values of 0 are below the axis
                left.plot(spectrum["share"], spectrum["rest"].clip(lower=LEAST / 10), **look)
            handles.append(Line2D([], [], color=color, linewidth=wide, label=_name(rows.iloc[0])))
        left.set(yscale="log", ylim=(LEAST, 1.5), xlim=(-0.01, 1.01), xlabel="share of eigenvectors, largest first")
        left.xaxis.set_major_formatter(PercentFormatter(1.0))
        held.set_ylim(0, 1.02)
        left.legend(handles=handles, loc="best", fontsize=6)  # where the fewest points of curves are
    columns[0][0].set_ylabel("cumulative energy")
    columns[0][1].set_ylabel("energy left")
    states = [state for state in STATES if state in set(measured.get("state", ()))]
    if states:
        page.legend(figure, [Line2D([], [], color=style.GRAY, linestyle=LINES[s], label=STATES[s]) for s in states])
    notes = ["inputs of one teleport batch; d counts the 1 that a bias appends"]
    for row in failed.itertuples():
        reason = textwrap.shorten(row.reason.partition(";")[0], 160, placeholder=" ...")  # without advice
        notes.append(f"left out: {style.label(style.DATA, row.data)}: {reason}")
    page.footnote(figure, table, "; ".join(notes))
    return figure


def _name(row: pd.Series) -> str:
    """``CIFAR-10, CNN`` and, below, the layer and the dimension of its inputs."""
    data, model = style.label(style.DATA, row["data"]), style.label(style.MODELS, row["model"])
    layer = ".".join(row["layer"].removesuffix(".weight").split(".")[-2:])
    return f"{data}, {model}\n{layer}, d = {int(row['dimension'])}"
