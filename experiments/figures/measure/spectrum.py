"""How the energy of a layer's inputs spreads over the eigenvectors of their Gram matrix."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from torch import Tensor

from experiments.errors import UserError, one_of
from experiments.figures.measure.subject import Subject, subject_of
from experiments.figures.runs import FigureRun
from teleport import representations

POINTS = 200
"""Of a curve: a spectrum of thousands of dimensions is thinned to about as many, evenly in their share."""


def measure_spectrum(run: FigureRun, *, layers: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The cumulative energy of a layer's inputs over one teleport batch, for the trained and the initial model.

    Args:
        run: what to look at.
        layers: model -> the name of a layer's weight; models without one take the second layer that is used.

    Returns:
        rows ``state`` (``trained`` or ``init``), ``layer``, ``dimension`` of its input vectors, the 1 of a folded bias
        included, ``positions`` that were seen, ``index`` of the eigenvector from 1, its ``share`` of the dimension,
        ``energy`` of the eigenvectors up to it as a share of all, and the ``rest`` to 1, without rounding.

    Raises:
        UserError: a layer that the model does not have.
    """
    subject = subject_of(run)
    wanted = (layers or {}).get(subject.config.model.name)
    frames = [_of_state(subject, "init", wanted)]
    subject.load_trained()
    return pd.concat([_of_state(subject, "trained", wanted), *frames], ignore_index=True)


def _of_state(subject: Subject, state: str, wanted: str | None) -> pd.DataFrame:
    batch = subject.teleport_batch(subject.config.model.teleport_samples)
    found = representations(subject.model, [batch], subject.loss_fn)
    names = list(found)
    if wanted is None and len(names) < 2:
        raise UserError(f"the model '{subject.config.model.name}' has no second layer to look at")
    name = names[1] if wanted is None else wanted
    if name not in found:
        raise one_of(f"layer of the model '{subject.config.model.name}'", name, names)
    representation = found[name]
    rows = cumulative_energy(representation.spectrum(), representation.dimension)
    seen = {"state": state, "layer": name, "dimension": representation.dimension, "positions": representation.positions}
    for place, (column, value) in enumerate(seen.items()):
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
    rest = (
        np.append(np.cumsum(energies[::-1])[::-1][1:], 0.0) / energies.sum()
    )  # summed from the small end: no rounding
    step = max(1, dimension // POINTS)
    index = np.unique(np.append(np.arange(0, dimension, step), dimension - 1))
    return pd.DataFrame(
        {"index": index + 1, "share": (index + 1) / dimension, "energy": 1.0 - rest[index], "rest": rest[index]}
    )
