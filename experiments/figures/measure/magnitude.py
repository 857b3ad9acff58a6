"""The gradient's magnitude after changes of basis of growing range, of a network as it was initialised."""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.analyses.changes import RandomChanges
from experiments.analyses.magnitude import Magnitudes, Transformed, backpropagated, magnitudes
from experiments.analyses.space import gradient
from experiments.figures.measure.subject import subject_of
from experiments.figures.runs import FigureRun


def measure_magnitude(
    run: FigureRun,
    *,
    smallest: float,
    largest: float,
    ranges: int,
    teleports: int,
    samples: int,
    backpropagated_every: int,
) -> pd.DataFrame:
    """``| |dW| / |W| - |dV| / |V| |`` of W and its teleports V, intra-landscape, on one batch.

    Theorem 5.1 says what the gradient of a teleported network is, so that one backward pass is enough for all of them.
    The first teleport of every so many ranges is also made, and its gradient computed anew: a row of its own.

    Args:
        run: whose model is looked at, before its first step; batch norm standardises by the batch.
        smallest: range.
        largest: range.
        ranges: from the smallest to the largest, evenly.
        teleports: of each range.
        samples: of the batch.
        backpropagated_every: this many ranges, from the largest down.

    Returns:
        rows ``range``, ``number`` of the teleport, ``source`` (``theorem`` or ``backpropagation``), ``difference``,
        ``gain = |dV| / |dW|``, and ``normalised_gain``, the same of ``|dV| / |V|``, whose sign the difference hides.
    """
    subject = subject_of(run)
    model, batch = subject.model, subject.teleport_batch(samples)
    gradients = gradient(model, batch, subject.loss_fn)
    before, transformed = magnitudes(model, gradients), Transformed(model, gradients)
    changes, rows = RandomChanges(model, batch[0]), []

    def add(source: str, after: Magnitudes) -> None:
        measured = {
            "difference": abs(before.normalised - after.normalised),
            "gain": after.gradient / before.gradient,
            "normalised_gain": after.normalised / before.normalised,
        }
        rows.append({"range": own, "number": number, "source": source, **measured})

    for place, own in enumerate(np.linspace(smallest, largest, ranges).tolist()):
        seed = subject.config.seed + place
        for number, factors in enumerate(changes.draw(range=own, count=teleports, seed=seed)):
            add("theorem", transformed(factors))
            if number == 0 and (ranges - 1 - place) % backpropagated_every == 0:
                add("backpropagation", backpropagated(model, batch, subject.loss_fn, factors))
    return pd.DataFrame(rows)
