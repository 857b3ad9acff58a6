"""Loss and accuracy along the line between two networks that were trained with different batch sizes."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from experiments.analyses.interpolation import Line
from experiments.errors import UserError
from experiments.figures.measure.subject import Subject, subject_of
from experiments.figures.runs import FigureRun
from experiments.run.runs import find
from teleport import ChangeOfBasis


def measure_interpolation(
    run: FigureRun, *, other_batch_size: int, ranges: Sequence[float], points: int, samples: int
) -> pd.DataFrame:
    """From the network A that ``run`` ended with to the same configuration's B of another batch size.

    Each range teleports A and B by an intra-landscape change of basis of its own each: one that both shared would
    teleport every network between them, and leave the line as it is.

    Args:
        run: a run whose partner is made, too; the partner itself has no rows.
        other_batch_size: of the partner.
        ranges: of the changes of basis; 0 is none.
        points: alphas, evenly from -0.5 to 1.5; A is at 0, B at 1.
        samples: of each split that losses are measured by; batch norms standardise by those of the training split.

    Returns:
        rows ``range``, ``alpha``, ``split`` (``train`` or ``test``), ``loss``, ``accuracy``.

    Raises:
        UserError: the partner is not there, or the task has no classes.
    """
    subject = subject_of(run)
    if subject.config.training.batch_size == other_batch_size:
        return pd.DataFrame()
    if subject.task.metric != "accuracy":
        raise UserError(f"the measure 'interpolation' needs a task with classes, and '{subject.task.name}' has none")
    first, second = _trained(run, subject), _trained(_partner(run, other_batch_size))
    splits = {name: _samples(subject, name, samples) for name in ("train", "test")}
    alphas = np.linspace(-0.5, 1.5, points).tolist()

    rows = []
    for size in ranges:
        ends = [copy.deepcopy(model) for model in (first, second)]
        for number, model in enumerate(ends):
            if size:
                ChangeOfBasis(range=size, seed=number)(model, [splits["train"]])
        line = Line(*ends, inputs=[splits["train"][0]])
        for alpha, found in zip(alphas, line.along(alphas, lambda model: _look(subject, model, splits)), strict=True):
            rows += [{"range": size, "alpha": alpha, "split": name, **values} for name, values in found.items()]
    return pd.DataFrame(rows)


def _partner(run: FigureRun, batch_size: int) -> FigureRun:
    config = copy.deepcopy(run.config)
    config.training.batch_size = batch_size
    folder = find(config)
    if folder is None:
        raise UserError(f"the run of batch size {batch_size} has no result, so that there is no line to it")
    return FigureRun(run.labels, config, folder)


def _trained(run: FigureRun, subject: Subject | None = None) -> nn.Module:
    subject = subject or subject_of(run)
    subject.load_trained()
    return subject.model


def _samples(subject: Subject, name: str, samples: int) -> tuple[Tensor, Tensor]:
    """The first of a split: tasks shuffle once for all."""
    split = getattr(subject.task, name)
    return split.batch(torch.arange(min(samples, len(split)), device=subject.device))


@torch.no_grad()
def _look(subject: Subject, model: nn.Module, splits: dict[str, tuple[Tensor, Tensor]]) -> dict[str, dict[str, float]]:
    found = {}
    for name, (inputs, targets) in splits.items():
        outputs = model(inputs)
        accuracy = (outputs.argmax(1) == targets).float().mean().item()
        found[name] = {"loss": subject.task.loss(outputs, targets).item(), "accuracy": accuracy}
    return found
