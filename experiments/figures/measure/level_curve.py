"""Teleports within and across landscapes: how far they go, and what they leave of the loss."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pandas as pd
import torch

from experiments.analyses.level_curve import level_curve
from experiments.analyses.space import flatten, trainable
from experiments.figures.measure.subject import subject_of
from experiments.figures.runs import FigureRun
from teleport import ChangeOfBasis

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


def measure_level_curve(run: FigureRun, *, range: float, teleports: int, samples: int) -> pd.DataFrame:
    """Inter-landscape teleports of the model that the run ended with, the same ones in both precisions.

    Args:
        run: whose model is looked at, in evaluation mode.
        range: of the changes of basis.
        teleports: all from the same weights.
        samples: of the training split, by which the loss is measured.

    Returns:
        rows ``precision``, ``number`` of the teleport, ``weight_magnitude`` (the mean of ``|W|``),
        ``weight_difference`` (of ``|V - W|``), ``loss_before``, ``loss_after``.
    """
    subject = subject_of(run)
    subject.load_trained()
    rows = []
    for precision, dtype in PRECISIONS.items():
        model = copy.deepcopy(subject.model).to(dtype)
        magnitude = flatten(trainable(model)).abs().mean().item()
        changes = [
            ChangeOfBasis(range=range, sampling="inter", activations="teleport", seed=seed)
            for seed in np.arange(teleports).tolist()
        ]
        found = level_curve(model, subject.teleport_batch(samples, dtype), subject.loss_fn, changes)
        for number, one in enumerate(found):
            row = {"precision": precision, "number": number, "weight_magnitude": magnitude}
            rows.append(row | dataclasses.asdict(one))
    return pd.DataFrame(rows)
