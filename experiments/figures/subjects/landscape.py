"""The loss surface of a network of two weights, with teleports within the landscape and across landscapes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.figures import page, style
from experiments.figures.runs import FigureRun

if TYPE_CHECKING:
    from torch import Tensor, nn

START = (0.6, 0.45)
"""The two initial weights; no teleport of range 0.5 from here leaves the square of side 2."""


@dataclass(frozen=True)
class _Network:
    """``second * relu(first * x)`` and its data."""

    layers: nn.Sequential
    batch: tuple[Tensor, Tensor]

    @property
    def weights(self) -> tuple[nn.Parameter, nn.Parameter]:
        return self.layers[0].weight, self.layers[2].weight

    def loss(self, model: nn.Module) -> Tensor:
        from torch.nn.functional import mse_loss

        return mse_loss(model(self.batch[0]), self.batch[1])


def measure_landscape(
    run: FigureRun | None, *, range: float, teleports: int, points: int, samples: int = 64, seed: int = 0
) -> pd.DataFrame:
    """The loss of ``y = w2 relu(w1 x)`` over its two weights, and teleports within and across landscapes.

    A positive tau leaves ReLU unchanged, and every negative tau turns it into ``tau relu(x / tau) = min(x, 0)``: there
    are two landscapes. The targets have a slope on either side of 0, and noise.

    Args:
        run: none.
        range: of the changes of basis.
        teleports: number per landscape, all from the same weights.
        points: of each axis, over [-1, 1].
        samples: of the data.
        seed: of data and teleports.

    Returns:
        rows ``what`` (``surface``, ``start`` or ``teleport``), ``landscape`` (``original`` or ``other``), the weights
        ``first`` and ``second``, the ``loss``, and for a teleport its ``tau``.
    """
    import torch

    from teleport import ChangeOfBasis

    network = _network(samples, seed)
    ticks = torch.linspace(-1, 1, points, dtype=torch.float64)
    found: dict[str, list[tuple[nn.Module, _Network, float]]] = {"original": [], "other": []}
    # The tau of an inter-landscape change of basis is negative with probability 1/2: draw until there are enough.
    for number in count(seed):
        moved = copy.deepcopy(network)
        report = ChangeOfBasis(range=range, sampling="inter", activations="teleport", seed=number)(
            moved.layers, [moved.batch]
        )
        tau = (moved.weights[0] / network.weights[0]).item()
        found["original" if tau > 0 else "other"].append((report.model, moved, tau))
        if all(len(those) >= teleports for those in found.values()):
            break
    first, second = network.weights
    start = {"first": first.item(), "second": second.item(), "loss": network.loss(network.layers).item()}
    frames = [pd.DataFrame([{"what": "start", "landscape": "original", **start, "tau": 1.0}])]
    for landscape, those in found.items():
        frames += [_point(landscape, *one) for one in islice(those, teleports)]
        model, moved, _ = those[0]
        losses = surface(*moved.weights, ticks, lambda model=model, moved=moved: moved.loss(model))
        frames.append(_surface_rows(landscape, ticks, losses))
    return pd.concat(frames, ignore_index=True)


def _network(samples: int, seed: int) -> _Network:
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, samples, 1, generator=generator, dtype=torch.float64)
    layers = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False)).double()
    network = _Network(layers, (x, 0.5 * x.relu() + 0.2 * x.clamp(max=0) + 0.05 * noise))
    with torch.no_grad():
        for weight, value in zip(network.weights, START, strict=True):
            weight.fill_(value)
    return network


def surface(first: nn.Parameter, second: nn.Parameter, ticks: Tensor, loss: Callable[[], Tensor]) -> Tensor:
    """``loss()`` with ``first`` at ``ticks[i]`` and ``second`` at ``ticks[j]``, [n, n]; both are restored afterwards.

    Args:
        first: of one element.
        second: of one element.
        ticks: [n].
        loss: a function of the two parameters, a scalar tensor.
    """
    import torch

    original = first.detach().clone(), second.detach().clone()
    losses = torch.empty(len(ticks), len(ticks), dtype=first.dtype)
    with torch.no_grad():
        for i, x in enumerate(ticks):
            for j, y in enumerate(ticks):
                first.fill_(x)
                second.fill_(y)
                losses[i, j] = loss()
        first.copy_(original[0])
        second.copy_(original[1])
    return losses


def _point(landscape: str, model: nn.Module, moved: _Network, tau: float) -> pd.DataFrame:
    first, second = moved.weights
    place = {"first": first.item(), "second": second.item(), "loss": moved.loss(model).item()}
    return pd.DataFrame([{"what": "teleport", "landscape": landscape, **place, "tau": tau}])


def _surface_rows(landscape: str, ticks: Tensor, losses: Tensor) -> pd.DataFrame:
    import torch

    first, second = torch.meshgrid(ticks, ticks, indexing="ij")
    places = {"first": first.flatten(), "second": second.flatten(), "loss": losses.flatten()}
    return pd.DataFrame({"what": "surface", "landscape": landscape, **places})


PANELS = {
    "original": "within the landscape: tau > 0, relu(x) stays",
    "other": "across landscapes: tau < 0, relu(x) becomes min(x, 0)",
}
ORIGIN = {"marker": "*", "markersize": 11, "linestyle": "", "color": style.PALETTE[1], "markeredgecolor": "white"}
TELEPORT = {  # rings, which leave W visible
    "marker": "o",
    "markersize": 7,
    "markerfacecolor": "none",
    "markeredgewidth": 1.6,
    "linestyle": "",
    "color": style.PALETTE[0],
}
LEVEL = {"colors": [style.PALETTE[1]], "linewidths": 1.2, "linestyles": "--"}


def draw_landscape(table: pd.DataFrame, title: str) -> page.Page:
    """One panel per landscape, with the level curve of the loss at the start.

    Args:
        table: rows of :func:`measure_landscape`.
        title: of the whole picture.
    """
    figure = page.start(title, 3.2)
    start = table[table["what"] == "start"].iloc[0]
    surfaces = table[table["what"] == "surface"]
    low, high = surfaces["loss"].min(), surfaces["loss"].max()
    levels = low + (high - low) * (np.arange(16) / 15) ** 2  # denser at low losses, where the surface is flat
    for axes, (landscape, name) in zip(figure.subplots(1, 2, sharey=True), PANELS.items(), strict=True):
        _surface(axes, surfaces[surfaces["landscape"] == landscape], levels, start["loss"])
        points = table[(table["what"] == "teleport") & (table["landscape"] == landscape)]
        if landscape == "original":
            axes.plot(start["first"], start["second"], **ORIGIN)
        axes.plot(points["first"], points["second"], **TELEPORT)
        axes.set_title(name)
        axes.set(xlabel="first weight", xticks=[-1, -0.5, 0, 0.5, 1], yticks=[-1, -0.5, 0, 0.5, 1])
        axes.set_aspect("equal")
        axes.grid(False)
    figure.axes[0].set_ylabel("second weight")
    handles = [
        Line2D([], [], label="W", **ORIGIN),
        Line2D([], [], label="teleports of W", **TELEPORT),
        Line2D([], [], color=LEVEL["colors"][0], linestyle="--", label="loss of W"),
    ]
    page.legend(figure, handles)
    spread = (table.loc[table["what"] == "teleport", "loss"] - start["loss"]).abs().max()
    points_a_side = round(np.sqrt(len(surfaces) / 2))
    what = (
        f"loss of y = w2 f(w1 x) on seeded data, {points_a_side} x {points_a_side} points, the darker the larger; "
        f"losses of the teleports differ from that of W by {spread:.0e} at most"
    )
    page.footnote(figure, table, what)
    return figure


def _surface(axes: Axes, rows: pd.DataFrame, levels: np.ndarray, loss: float) -> None:
    losses = rows.pivot(index="second", columns="first", values="loss")
    axes.contourf(losses.columns, losses.index, losses, levels=levels, cmap="Greys", alpha=0.75)
    axes.contour(losses.columns, losses.index, losses, levels=[loss], **LEVEL)
