"""The distance of inter-landscape teleports and the change of the loss (Armenta et al., section 4.2)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from experiments.figures import page, style
from experiments.figures.runs import FigureRun

if TYPE_CHECKING:
    from torch import nn

    from experiments.figures.weight_space import LossFn
    from teleport import ChangeOfBasis

PRECISIONS = ("float32", "float64")
LEAST = {"float32": 1e-18, "float64": 1e-17}  # differences of 0 are drawn at these values, side by side
ROWS = {
    "weight_magnitude": "mean |W|",
    "weight_difference": "mean |V - W|",
    "loss_before": "loss",
    "loss_difference": "mean |change of the loss|",
}


class Teleported(NamedTuple):
    """One teleport of a network W to V."""

    weight_difference: float  # the mean of |V - W| over all parameters
    loss_before: float  # of W on the batch
    loss_after: float  # of V with its teleported activations


def measure_level_curve(run: FigureRun, *, range: float, teleports: int, samples: int) -> pd.DataFrame:
    """Inter-landscape teleports of the run's final model, the same ones in both precisions.

    Args:
        run: the run whose final model is measured, in evaluation mode.
        range: of the changes of basis.
        teleports: number of them, all from the same weights.
        samples: of the training split, on which the loss is measured.

    Returns:
        rows ``precision``, ``number`` of the teleport, ``weight_magnitude`` (the mean of ``|W|``),
        ``weight_difference`` (the mean of ``|V - W|``), ``loss_before``, ``loss_after``.
    """
    import torch

    from experiments.figures.rebuilt import rebuild
    from experiments.figures.weight_space import flatten, trainable
    from teleport import ChangeOfBasis

    rebuilt = rebuild(run)
    rebuilt.load_trained()
    rows = []
    for precision in PRECISIONS:
        dtype = getattr(torch, precision)
        model = copy.deepcopy(rebuilt.model).to(dtype)
        magnitude = flatten(trainable(model)).abs().mean().item()
        changes = [
            ChangeOfBasis(range=range, sampling="inter", activations="teleport", seed=seed)
            for seed in np.arange(teleports).tolist()
        ]
        found = level_curve(model, rebuilt.teleport_batch(samples, dtype), rebuilt.loss_fn, changes)
        for number, one in enumerate(found):
            row = {"precision": precision, "number": number, "weight_magnitude": magnitude}
            rows.append(row | one._asdict())
    return pd.DataFrame(rows)


def level_curve(model: nn.Module, batch: Any, loss_fn: LossFn, changes: Sequence[ChangeOfBasis]) -> list[Teleported]:
    """Teleport a copy of ``model`` by each of ``changes``, always from the same weights.

    Args:
        model: in the mode in which it is evaluated.
        batch: the second argument of ``loss_fn``.
        loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
        changes: methods, each with its seed.
    """
    import torch

    from experiments.figures.weight_space import flatten

    found = []
    with torch.no_grad():
        before = loss_fn(model, batch).item()
        start = flatten(model.parameters())
        for change in changes:
            moved = copy.deepcopy(model)
            report = change(moved, [batch])
            distance = (flatten(moved.parameters()) - start).abs().mean().item()
            found.append(Teleported(distance, before, loss_fn(report.model, batch).item()))
    return found


def draw_level_curve(table: pd.DataFrame, title: str) -> page.Page:
    """Left one point per teleport and precision, right their means.

    Args:
        table: rows of :func:`measure_level_curve`.
        title: of the whole picture.
    """
    figure = page.start(title, 2.2)
    points, means = figure.subplots(1, 2, width_ratios=(1.2, 1))
    means.set_axis_off()
    if (table["reason"] != "").any():
        page.no_result(points, table)
        page.footnote(figure, table, "no result")
        return figure
    rows = table.assign(loss_difference=(table["loss_after"] - table["loss_before"]).abs())
    for (precision, own), color in zip(rows.groupby("precision"), style.PALETTE, strict=False):
        look = {"color": color, "marker": "o", "markersize": 2.5, "linestyle": "", "label": precision}
        points.plot(own["weight_difference"], own["loss_difference"].clip(lower=LEAST[str(precision)]), **look)
    points.set_yscale("log")
    largest = math.ceil(math.log10(max(rows["loss_difference"].max(), *LEAST.values())))
    decades = [10.0**exponent for exponent in range(-15, max(largest, -14) + 1, 3)]
    named = {f"0 in {precision}": least for precision, least in LEAST.items() if precision in set(rows["precision"])}
    labels = [*named, *(f"$10^{{{round(math.log10(decade))}}}$" for decade in decades)]
    points.set_yticks([*named.values(), *decades], labels)
    points.yaxis.set_minor_locator(NullLocator())
    points.set_xlabel("mean |V - W| of a teleport")
    points.set_ylabel("|change of the loss|")
    points.legend(loc="center left", bbox_to_anchor=(0.0, 0.6))
    _table(means, rows)
    count = rows.groupby("precision")["number"].nunique().max()
    page.footnote(
        figure, table, f"{count} inter-landscape teleports from the same weights; below, those that change nothing"
    )
    return figure


def _table(axes: Axes, rows: pd.DataFrame) -> None:
    means = rows.groupby("precision")[list(ROWS)].mean()
    cells = [[f"{means.loc[precision, column]:.3g}" for precision in means.index] for column in ROWS]
    drawn = axes.table(
        cells, rowLabels=list(ROWS.values()), colLabels=list(means.index), loc="center right", colWidths=[0.26, 0.26]
    )
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(7)
    drawn.scale(1, 1.4)
    for cell in drawn.get_celld().values():
        cell.set_linewidth(0.4)
