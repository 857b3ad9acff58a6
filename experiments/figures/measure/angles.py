"""Angles between micro-teleportations, gradients and random vectors, of a network as it was initialised."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from experiments.analyses.angles import angles
from experiments.analyses.changes import RandomChanges
from experiments.analyses.space import displacement, flatten, gradient, trainable
from experiments.figures.measure.subject import subject_of
from experiments.figures.runs import FigureRun


def measure_angles(
    run: FigureRun,
    *,
    range: float,
    teleports: int,
    batch_sizes: Sequence[int],
) -> pd.DataFrame:
    """Angles in degrees, a row a micro-teleportation and batch size, all in double precision.

    Gradients are those of a network that learns: batch norm standardises by the batch.

    Args:
        run: whose model is looked at, before its first step.
        range: of the changes of basis, intra-landscape.
        teleports: micro-teleportations.
        batch_sizes: one gradient for each.

    Returns:
        rows ``parameters`` of the weight space, ``batch_size``, ``number`` of the teleport, and an angle for each of
        ``experiments.analyses.angles.PAIRS``; those without a gradient are the same for each batch size.
    """
    subject = subject_of(run)
    model = subject.model.double()
    batches = [subject.teleport_batch(samples, torch.float64) for samples in batch_sizes]
    gradients = [flatten(gradient(model, batch, subject.loss_fn)) for batch in batches]
    drawn = RandomChanges(model, batches[0][0]).draw(range=range, count=teleports, seed=subject.config.seed)
    found = angles(
        (displacement(model, factors) for factors in drawn),
        gradients,
        torch.Generator().manual_seed(subject.config.seed),
    )
    parameters = sum(parameter.numel() for parameter in trainable(model))
    return pd.DataFrame(
        [
            {"parameters": parameters, "batch_size": size, "number": number, **row}
            for number, rows in enumerate(found)
            for size, row in zip(batch_sizes, rows, strict=True)
        ]
    )
