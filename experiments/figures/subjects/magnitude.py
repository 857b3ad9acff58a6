"""The norm of the gradient after changes of basis, against their range (Armenta et al., section 5.1)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.figures import page, style
from experiments.figures.runs import FigureRun

if TYPE_CHECKING:
    from torch import Tensor, nn

    from experiments.figures.weight_space import Factors, LossFn


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
    """``| |dW| / |W| - |dV| / |V| |`` of W and its intra-landscape teleports V, on one batch.

    By Theorem 5.1 the gradient of a teleported network follows from the original one, so that one backward pass serves
    all teleports. As a check, the first teleport of some ranges is carried out and its gradient computed by
    backpropagation; it has a row of its own.

    Args:
        run: the run whose initial model is measured; batch norm uses the statistics of the batch.
        smallest: range.
        largest: range.
        ranges: number of ranges, evenly from the smallest to the largest.
        teleports: number per range.
        samples: of the batch.
        backpropagated_every: distance between the checked ranges, counted from the largest down.

    Returns:
        rows ``range``, ``number`` of the teleport, ``source`` (``theorem`` or ``backpropagation``), ``difference``,
        ``gain = |dV| / |dW|``, and ``normalised_gain``, the ratio of ``|dV| / |V|`` to ``|dW| / |W|``, which shows the
        sign of the difference.
    """
    from experiments.figures.rebuilt import rebuild
    from experiments.figures.weight_space import RandomChanges, gradient

    rebuilt = rebuild(run)
    model, batch = rebuilt.model, rebuilt.teleport_batch(samples)
    gradients = gradient(model, batch, rebuilt.loss_fn)
    before, transformed = magnitudes(model, gradients), Transformed(model, gradients)
    changes, rows = RandomChanges(model, batch[0]), []

    def add(source: str, after: Magnitudes) -> None:
        measured = {
            "difference": abs(before.normalised - after.normalised),
            "gain": after.gradient / before.gradient,
            "normalised_gain": after.normalised / before.normalised,
        }
        rows.append({"range": size, "number": number, "source": source, **measured})

    for place, size in enumerate(np.linspace(smallest, largest, ranges).tolist()):
        seed = rebuilt.config.seed + place
        for number, factors in enumerate(changes.draw(range=size, count=teleports, seed=seed)):
            add("theorem", transformed(factors))
            if number == 0 and (ranges - 1 - place) % backpropagated_every == 0:
                add("backpropagation", backpropagated(model, batch, rebuilt.loss_fn, factors))
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Magnitudes:
    """Norms of the weights and of the gradient at one point of the weight space."""

    weights: float
    gradient: float

    @property
    def normalised(self) -> float:
        """``|dW| / |W|``."""
        return self.gradient / self.weights


def magnitudes(model: nn.Module, gradients: Sequence[Tensor]) -> Magnitudes:
    """The norms for ``model`` and its ``gradients``, see :func:`~experiments.figures.weight_space.gradient`."""
    from experiments.figures.weight_space import norm, trainable

    return Magnitudes(norm(trainable(model)), norm(gradients))


class Transformed:
    """The norms after changes of basis, by Theorem 5.1: weights are multiplied, gradients divided by their factors.

    Squares of elements with the same factor are summed once, so that a kernel costs as much as one weight.

    Args:
        model: the original network.
        gradients: of the original network, see :func:`~experiments.figures.weight_space.gradient`.
    """

    def __init__(self, model: nn.Module, gradients: Sequence[Tensor]) -> None:
        from experiments.figures.weight_space import trainable

        self._squares = {
            parameter: (parameter.detach().double().square(), of.double().square())
            for parameter, of in zip(trainable(model), gradients, strict=True)
        }

    def __call__(self, factors: Factors) -> Magnitudes:
        """The norms after ``factors``; their shapes must be the same in every call."""
        weights = gradient = 0.0
        for parameter, (of_weight, of_gradient) in self._squares.items():
            if parameter in factors:
                square = factors[parameter].double().square()
                if of_weight.shape != square.shape:
                    of_weight, of_gradient = (each.sum_to_size(square.shape) for each in (of_weight, of_gradient))
                    self._squares[parameter] = of_weight, of_gradient
                of_weight, of_gradient = of_weight * square, of_gradient / square
            weights += of_weight.sum().item()
            gradient += of_gradient.sum().item()
        return Magnitudes(math.sqrt(weights), math.sqrt(gradient))


def backpropagated(model: nn.Module, batch: Any, loss_fn: LossFn, factors: Factors) -> Magnitudes:
    """The norms of a copy of ``model`` teleported by ``factors``, its gradient computed by backpropagation."""
    import torch

    from experiments.figures.weight_space import gradient

    teleported = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, copied in zip(model.parameters(), teleported.parameters(), strict=True):
            if parameter in factors:
                copied.mul_(factors[parameter].to(copied.dtype))
    return magnitudes(teleported, gradient(teleported, batch, loss_fn))


def expected_gain(ranges: Any) -> Any:
    """The root of ``E[(tau_a / tau_b)^2]`` for independent tau ~ U(1 - range, 1 + range), 0 <= range < 1; elementwise.

    It is the expected growth, in root mean square, of the gradient of the weights between two hidden layers.
    """
    return np.sqrt((1 + ranges**2 / 3) / (1 - ranges**2))


DOT = {"linestyle": "", "marker": "o", "markersize": 1.8, "markeredgewidth": 0, "color": style.PALETTE[5]}
CHECK = {
    "linestyle": "",
    "marker": "o",
    "markersize": 4,
    "markerfacecolor": "none",
    "markeredgewidth": 0.8,
    "color": style.PALETTE[1],
}
MEAN = {"color": style.PALETTE[0], "linewidth": 1.2}
EXPECTED = {"color": style.GRAY, "linestyle": ":", "linewidth": 1.1}

PANELS = {
    "difference": "$|\\,|dW|/|W| - |dV|/|V|\\,|$",
    "gain": "$|dV|\\,/\\,|dW|$",
    "normalised_gain": "$(|dV|/|V|)\\,/\\,(|dW|/|W|)$",
}
"""Measured column -> its name on an axis, from the top down."""


def draw_magnitude(table: pd.DataFrame, title: str) -> page.Page:
    """One column per network: the difference of the normalised norms, and the growth of the plain and normalised norms.

    Args:
        table: rows of :func:`measure_magnitude`.
        title: of the whole picture.
    """
    figure = page.start(title, 4.5)
    models = list(table["model"].unique())
    axes = figure.subplots(len(PANELS), len(models), squeeze=False, sharex=True)
    for model, column in zip(models, axes.T, strict=True):
        top, middle, _ = column
        rows = table[table["model"] == model]
        top.set_title(style.label(style.MODELS, model))
        if (rows["reason"] != "").any():
            page.no_result(top, rows)
            continue
        for panel, measured in zip(column, PANELS, strict=True):
            _panel(panel, rows, measured)
        ranges = np.linspace(0, rows["range"].max(), 100)
        middle.plot(ranges, expected_gain(ranges), **EXPECTED)
        _plain_log(middle)
    for panel in axes[-1]:
        panel.set_xlabel("range")
    for panel, name in zip(axes[:, 0], PANELS.values(), strict=True):
        panel.set_ylabel(name)
    handles = [
        Line2D([], [], label="a teleport", **DOT),
        Line2D([], [], label="mean", **MEAN),
        Line2D([], [], label="backpropagated anew", **CHECK),
        Line2D([], [], label="expected between hidden layers", **EXPECTED),
    ]
    page.legend(figure, handles)
    data = ", ".join(style.label(style.DATA, name) for name in table["data"].unique())
    page.footnote(
        figure,
        table,
        f"{data}, one batch, at initialisation; W: weights, V: teleported ones, dW and dV: gradients there, "
        "by Theorem 5.1 where not said otherwise",
    )
    return figure


def _plain_log(axes: Axes) -> None:
    """A log axis with plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _panel(axes: Axes, rows: pd.DataFrame, column: str) -> None:
    theorem, again = rows[rows["source"] == "theorem"], rows[rows["source"] == "backpropagation"]
    mean = theorem.groupby("range")[column].mean()
    axes.plot(theorem["range"], theorem[column], **DOT)
    axes.plot(mean.index, mean, **MEAN)
    axes.plot(again["range"], again[column], **CHECK)
