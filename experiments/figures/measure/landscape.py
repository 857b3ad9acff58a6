"""A network of two weights: its whole loss surface, and where changes of basis take it on it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import count, islice

import pandas as pd
import torch
from torch import Tensor, nn

from experiments.analyses.landscape import surface
from experiments.figures.runs import FigureRun
from teleport import ChangeOfBasis

START = (0.6, 0.45)
"""Where the weights are: no teleport of range 0.5 leaves the square of side 2 from here."""


@dataclass(frozen=True)
class _Network:
    """``second * relu(first * x)`` and what it is to learn."""

    layers: nn.Sequential
    batch: tuple[Tensor, Tensor]

    @property
    def weights(self) -> tuple[nn.Parameter, nn.Parameter]:
        return self.layers[0].weight, self.layers[2].weight

    def loss(self, model: nn.Module) -> Tensor:
        return nn.functional.mse_loss(model(self.batch[0]), self.batch[1])


def measure_landscape(
    run: FigureRun | None, *, range: float, teleports: int, points: int, samples: int = 64, seed: int = 0
) -> pd.DataFrame:
    """The loss of ``y = w2 relu(w1 x)`` over its two weights, and teleports within and across landscapes.

    A positive tau leaves ReLU, a negative one makes ``tau relu(x / tau) = min(x, 0)`` of it, whatever tau: these are
    the two landscapes there are. The targets have a slope on either side of 0, and noise.

    Args:
        run: none.
        range: of the changes of basis.
        teleports: to each landscape, all from the same weights.
        points: of each axis, over [-1, 1].
        samples: of the data.
        seed: of data and teleports.

    Returns:
        rows ``what`` (``surface``, ``start`` or ``teleport``), ``landscape`` (``original`` or ``other``), ``first``,
        ``second``, the loss, and of a teleport its ``tau``.
    """
    network = _network(samples, seed)
    ticks = torch.linspace(-1, 1, points, dtype=torch.float64)
    found: dict[str, list[tuple[nn.Module, _Network, float]]] = {"original": [], "other": []}
    # An inter-landscape change of basis is negative in every other case; as many are drawn as it takes.
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
        frames.append(_surface(landscape, ticks, losses))
    return pd.concat(frames, ignore_index=True)


def _network(samples: int, seed: int) -> _Network:
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, samples, 1, generator=generator, dtype=torch.float64)
    layers = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False)).double()
    network = _Network(layers, (x, 0.5 * x.relu() + 0.2 * x.clamp(max=0) + 0.05 * noise))
    with torch.no_grad():
        for weight, value in zip(network.weights, START, strict=True):
            weight.fill_(value)
    return network


def _point(landscape: str, model: nn.Module, moved: _Network, tau: float) -> pd.DataFrame:
    first, second = moved.weights
    place = {"first": first.item(), "second": second.item(), "loss": moved.loss(model).item()}
    return pd.DataFrame([{"what": "teleport", "landscape": landscape, **place, "tau": tau}])


def _surface(landscape: str, ticks: Tensor, losses: Tensor) -> pd.DataFrame:
    first, second = torch.meshgrid(ticks, ticks, indexing="ij")
    places = {"first": first.flatten(), "second": second.flatten(), "loss": losses.flatten()}
    return pd.DataFrame({"what": "surface", "landscape": landscape, **places})
