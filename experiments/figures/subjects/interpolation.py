"""Loss and accuracy along the line between two networks, before and after teleports.

Source: Armenta et al., section 4.4, after Li et al. 2018. The two networks are trained with different batch sizes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from experiments.configuration.validate import resolve
from experiments.errors import UserError
from experiments.figures import page, style
from experiments.figures.runs import FigureRun
from experiments.run.runs import complete, folder_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from experiments.figures.rebuilt import RebuiltRun

LOSS = {"color": style.PALETTE[0]}
ACCURACY = {"color": style.PALETTE[1]}
SPLITS = {"train": "-", "test": "--"}


def measure_interpolation(
    run: FigureRun, *, other_batch_size: int, ranges: Sequence[float], points: int, samples: int
) -> pd.DataFrame:
    """From the final network A of ``run`` to the final network B of the same configuration with another batch size.

    For each range, A and B are teleported by different intra-landscape changes of basis: a common one would teleport
    every network between them and leave the losses along the line unchanged.

    Args:
        run: a run; the run of the other batch size must be finished, too, and has no rows of its own.
        other_batch_size: of B.
        ranges: of the changes of basis; 0 is none.
        points: alphas, evenly from -0.5 to 1.5; A is at 0, B at 1.
        samples: number of samples of each split for the losses; batch norms take their statistics from those of the
            training split.

    Returns:
        rows ``range``, ``alpha``, ``split`` (``train`` or ``test``), ``loss``, ``accuracy``.

    Raises:
        UserError: the other run is missing, or the task has no classes.
    """
    from experiments.figures.rebuilt import rebuild
    from teleport import ChangeOfBasis
    from teleport._matching.line import Line

    rebuilt = rebuild(run)
    if rebuilt.config.training.batch_size == other_batch_size:
        return pd.DataFrame()
    if rebuilt.task.metric != "accuracy":
        raise UserError(f"the measure 'interpolation' needs a task with classes, and '{rebuilt.task.name}' has none")
    other = rebuild(_other(run, other_batch_size))
    for each in (rebuilt, other):
        each.load_trained()
    splits = {name: _samples(rebuilt, name, samples) for name in SPLITS}
    alphas = np.linspace(-0.5, 1.5, points).tolist()

    rows = []
    for size in ranges:
        ends = [copy.deepcopy(each.model) for each in (rebuilt, other)]
        for number, model in enumerate(ends):
            if size:
                ChangeOfBasis(range=size, seed=number)(model, [splits["train"]])
        line = Line(*ends, inputs=[splits["train"][0]])
        values_along = line.along(alphas, lambda model: _losses(rebuilt, model, splits))
        for alpha, found in zip(alphas, values_along, strict=True):
            rows += [{"range": size, "alpha": alpha, "split": name, **values} for name, values in found.items()]
    return pd.DataFrame(rows)


def _other(run: FigureRun, batch_size: int) -> FigureRun:
    """The finished run of the same configuration with another batch size."""
    config = copy.deepcopy(run.config)
    config.training.batch_size = batch_size
    folder = folder_of(resolve(config))
    if not complete(folder):
        raise UserError(f"the run of batch size {batch_size} has no result, so that there is no line to it")
    return FigureRun(run.labels, config, folder)


def _samples(rebuilt: RebuiltRun, name: str, samples: int) -> tuple[Tensor, Tensor]:
    """The first samples of a split, which the task has shuffled once."""
    import torch

    split = getattr(rebuilt.task, name)
    return split.batch(torch.arange(min(samples, len(split)), device=rebuilt.device))


def _losses(
    rebuilt: RebuiltRun, model: nn.Module, splits: dict[str, tuple[Tensor, Tensor]]
) -> dict[str, dict[str, float]]:
    """``loss`` and ``accuracy`` of ``model`` on each split."""
    import torch

    found = {}
    with torch.no_grad():
        for name, (inputs, targets) in splits.items():
            outputs = model(inputs)
            accuracy = (outputs.argmax(1) == targets).float().mean().item()
            found[name] = {"loss": rebuilt.task.loss(outputs, targets).item(), "accuracy": accuracy}
    return found


def draw_interpolation(table: pd.DataFrame, title: str) -> page.Page:
    """One panel per range: losses on a log axis, accuracies on a second axis.

    Args:
        table: rows of :func:`measure_interpolation`.
        title: of the whole picture.
    """
    figure = page.start(title, 2.1)
    measured, failed = table[table["reason"] == ""], table[table["reason"] != ""]
    ranges = list(measured["range"].unique()) if len(measured) else [0.0]
    panels = figure.subplots(1, len(ranges), squeeze=False, sharey=True)[0]
    right = None
    for axes, size in zip(panels, ranges, strict=True):
        axes.set_title(f"range {size:g}" if size else "not teleported")
        axes.set_xlabel("alpha, from A (0) to B (1)")
        axes.set_yscale("log")
        other = axes.twinx()
        other.set_ylim(0, 1)
        other.grid(False)
        other.tick_params(right=axes is panels[-1], labelright=axes is panels[-1])
        right = other
        for split, line in SPLITS.items():
            rows = measured[(measured["range"] == size) & (measured["split"] == split)] if len(measured) else measured
            if len(rows):
                axes.plot(rows["alpha"], rows["loss"], linestyle=line, **LOSS)
                other.plot(rows["alpha"], rows["accuracy"], linestyle=line, **ACCURACY)
    panels[0].set_ylabel("loss", color=LOSS["color"])
    right.set_ylabel("accuracy", color=ACCURACY["color"])
    page.no_result(panels[0], failed)
    handles = [Line2D([], [], label="loss", **LOSS), Line2D([], [], label="accuracy", **ACCURACY)]
    handles += [Line2D([], [], color=style.GRAY, linestyle=line, label=split) for split, line in SPLITS.items()]
    page.legend(figure, handles)
    page.footnote(
        figure,
        table,
        "A was trained with small batches, B with large ones; a test line that is not seen is under that of training",
    )
    return figure
