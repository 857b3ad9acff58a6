"""Angles between micro-teleportations, gradients and random vectors (Armenta et al., section 4.3)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from experiments.figures import page, style
from experiments.figures.runs import FigureRun

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PAIRS = {
    "micro_gradient": "micro-teleport, gradient",
    "micro_random": "micro-teleport, random",
    "gradient_random": "gradient, random",
    "random_random": "random, random",
}
"""Column of an angle -> the two vectors that it is between."""

WITH_GRADIENT = ("micro_gradient", "gradient_random")  # the other angles do not depend on the batch
LEAST, BINS_PER_DECADE = -7, 8  # the exponent of the smallest deviation in degrees that has a bin of its own


def measure_angles(
    run: FigureRun,
    *,
    range: float,
    teleports: int,
    batch_sizes: Sequence[int],
) -> pd.DataFrame:
    """Angles in degrees, one row per micro-teleportation and batch size, all in double precision.

    Gradients are computed in training mode: batch norm uses the statistics of the batch.

    Args:
        run: the run whose initial model is measured.
        range: of the intra-landscape changes of basis.
        teleports: number of micro-teleportations.
        batch_sizes: one gradient is computed for each.

    Returns:
        rows ``parameters`` of the weight space, ``batch_size``, ``number`` of the teleport, and one angle per key of
        :data:`PAIRS`; angles without a gradient are the same for each batch size.
    """
    import torch

    from experiments.figures.rebuilt import rebuild
    from experiments.figures.weight_space import RandomChanges, displacement, flatten, gradient, trainable

    rebuilt = rebuild(run)
    model = rebuilt.model.double()
    batches = [rebuilt.teleport_batch(samples, torch.float64) for samples in batch_sizes]
    gradients = [flatten(gradient(model, batch, rebuilt.loss_fn)) for batch in batches]
    drawn = RandomChanges(model, batches[0][0]).draw(range=range, count=teleports, seed=rebuilt.config.seed)
    found = angles(
        (displacement(model, factors) for factors in drawn),
        gradients,
        torch.Generator().manual_seed(rebuilt.config.seed),
    )
    parameters = sum(parameter.numel() for parameter in trainable(model))
    return pd.DataFrame(
        [
            {"parameters": parameters, "batch_size": size, "number": number, **row}
            for number, rows in enumerate(found)
            for size, row in zip(batch_sizes, rows, strict=True)
        ]
    )


def angles(
    displacements: Iterable[Tensor], gradients: Sequence[Tensor], generator: torch.Generator
) -> Iterator[list[dict[str, float]]]:
    """For each displacement, the four angles of :data:`PAIRS` with each gradient, in degrees.

    Each displacement is compared with one random vector, standard normal and hence uniform in direction, which all
    gradients share. The pair of random vectors is the current one and the previous one: consecutive pairs share a
    vector, but their angles are independent.

    Args:
        displacements: of micro-teleportations, ``V - W`` [P] each; consumed one at a time.
        gradients: at least one, [P] each.
        generator: of the random vectors, on the CPU.
    """
    from experiments.figures.weight_space import angle, unit

    gradients = [unit(of) for of in gradients]
    previous = _random(gradients[0], generator)
    for micro in map(unit, displacements):
        other = _random(micro, generator)
        shared = {"micro_random": angle(micro, other), "random_random": angle(previous, other)}
        yield [{"micro_gradient": angle(micro, of), "gradient_random": angle(of, other), **shared} for of in gradients]
        previous = other


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    """A random unit vector, drawn in single precision, which is faster than double and sufficient for a direction."""
    import torch

    drawn = torch.randn(like.shape, generator=generator).to(like)
    return drawn.div_(torch.linalg.vector_norm(drawn))


def draw_angles(table: pd.DataFrame, title: str) -> page.Page:
    """Histograms of the deviations from 90 degrees: one column per network and data set, one row per pair of vectors.

    Args:
        table: rows of :func:`measure_angles`.
        title: of the whole picture.
    """
    figure = page.start(title, 3.9)
    cells = list(table.groupby(["model", "data"], sort=False))
    axes = figure.subplots(len(PAIRS), len(cells), squeeze=False, sharex=True, sharey="row")
    sizes = sorted(table["batch_size"].dropna().unique())
    colors = dict(zip(sizes, style.PALETTE, strict=False))
    edges = _edges(table)
    for ((model, data), rows), column in zip(cells, axes.T, strict=True):
        _head(column[0], model, data, rows, several=table["data"].nunique() > 1)
        if (rows["reason"] != "").any():
            page.no_result(column[0], rows)
            continue
        for panel, pair in zip(column, PAIRS, strict=True):
            _histograms(panel, rows, pair, colors, edges)
    for line, name in zip(axes[:, 0], PAIRS.values(), strict=True):
        line.set_ylabel(name.replace(", ", ",\n"), fontsize=6.5)
    for panel in axes[-1]:
        panel.set_xlabel("|angle - 90|, degrees")
    handles = [
        Patch(facecolor=to_rgba(color, FILL), edgecolor=color, label=f"batch {size:g}")
        if number == 0
        else Line2D([], [], color=color, label=f"batch {size:g}")
        for number, (size, color) in enumerate(colors.items())
    ]
    page.legend(
        figure, [*handles, Patch(facecolor=to_rgba(style.GRAY, FILL), edgecolor=style.GRAY, label="no gradient")]
    )
    page.footnote(
        figure, table, "counts of micro-teleports, in double precision; smaller deviations are in the first bin"
    )
    return figure


FILL = 0.3
"""The opacity of the first of several histograms, which the others are drawn on top of as lines."""


def _edges(table: pd.DataFrame) -> list[float]:
    """Of bins of equal width in the logarithm, up to the largest deviation; rounded, as logarithms are."""
    deviations = table[[pair for pair in PAIRS if pair in table]].sub(90).abs().to_numpy(float)
    largest = np.nanmax(deviations, initial=10.0**LEAST)
    last = math.ceil(math.log10(largest) * BINS_PER_DECADE + 1e-6)
    return [float(f"{10 ** (step / BINS_PER_DECADE):.6g}") for step in range(LEAST * BINS_PER_DECADE, last + 1)]


def _head(axes: Axes, model: str, data: str, rows: pd.DataFrame, several: bool) -> None:
    name = style.label(style.MODELS, model) + (f", {style.label(style.DATA, data)}" if several else "")
    size = rows["parameters"].iloc[0]
    axes.set_title(name if np.isnan(size) else f"{name}\n{size / 1e6:.2f} M parameters", fontsize=7)


def _series(rows: pd.DataFrame, pair: str, colors: dict[float, str]) -> list[tuple[np.ndarray, str]]:
    """Deviations from 90 degrees and their colour: one series per batch size if the pair has a gradient, else one."""
    if pair in WITH_GRADIENT:
        return [(own[pair].to_numpy() - 90, colors[size]) for size, own in rows.groupby("batch_size")]
    return [(rows.loc[rows["batch_size"] == rows["batch_size"].min(), pair].to_numpy() - 90, style.GRAY)]


def _histograms(axes: Axes, rows: pd.DataFrame, pair: str, colors: dict[float, str], edges: list[float]) -> None:
    for number, (deviations, color) in enumerate(_series(rows, pair, colors)):
        inside = np.clip(np.abs(deviations), edges[0], edges[-1])
        form = {"histtype": "stepfilled", "facecolor": to_rgba(color, FILL)} if number == 0 else {"histtype": "step"}
        axes.hist(inside, edges, edgecolor=color, linewidth=0.9, **form)
    axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.set_major_locator(FixedLocator([10.0**exponent for exponent in range(LEAST + 1, 2, 2)]))
    axes.xaxis.set_minor_locator(NullLocator())
