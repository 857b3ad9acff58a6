"""How the weights of a network are distributed before and after a change of basis."""

from __future__ import annotations

import pandas as pd

from experiments.analyses.changes import RandomChanges
from experiments.analyses.histogram import histogram
from experiments.analyses.space import displacement, flatten, trainable
from experiments.figures.measure.subject import subject_of
from experiments.figures.runs import FigureRun


def measure_weight_histogram(run: FigureRun, *, range: float, limit: float, bins: int) -> pd.DataFrame:
    """Counts of the model's parameters, as it was initialised and after one intra-landscape teleport.

    Args:
        run: whose model is looked at, before its first step.
        range: of the change of basis.
        limit: the bins are over [-limit, limit]; what lies outside has a bin on either side.
        bins: within it.

    Returns:
        rows ``state`` (``before`` or ``after``), ``low``, ``high``, ``count``.
    """
    subject = subject_of(run)
    inputs, _ = subject.teleport_batch(2)
    (factors,) = RandomChanges(subject.model, inputs).draw(range=range, count=1, seed=subject.config.seed)
    before = flatten(trainable(subject.model))
    states = {"before": before, "after": before + displacement(subject.model, factors)}
    frames = [histogram(values, limit, bins).assign(state=state) for state, values in states.items()]
    return pd.concat(frames, ignore_index=True)[["state", "low", "high", "count"]]
