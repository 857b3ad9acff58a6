"""A small network as a quiver: neurons with their change of basis, edges with their weights before and after."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import pandas as pd
import torch
from torch import Tensor, nn

from experiments.figures.runs import FigureRun
from teleport import ChangeOfBasis


def measure_quiver(run: FigureRun | None, *, widths: Sequence[int], range: float, seed: int = 0) -> pd.DataFrame:
    """A ReLU network without biases, and one intra-landscape teleport of it.

    Args:
        run: none.
        widths: neurons of each layer, inputs and outputs included.
        range: of the change of basis.
        seed: of weights and change of basis.

    Returns:
        a row a neuron or edge: ``what``, ``layer`` (of the edge's head), ``neuron`` (its head), ``source`` (an edge's
        tail), ``tau`` of a neuron, ``weight`` and ``teleported`` of an edge.
    """
    model = _network(widths, seed)
    before = [layer.weight.detach().clone() for layer in model if isinstance(layer, nn.Linear)]
    moved = copy.deepcopy(model)
    ChangeOfBasis(range=range, seed=seed)(moved, [(torch.ones(1, widths[0], dtype=torch.float64),)])
    after = [layer.weight.detach() for layer in moved if isinstance(layer, nn.Linear)]
    rows = []
    for layer, tau in enumerate(_taus(before, after)):
        for neuron, value in enumerate(tau.tolist()):
            rows.append({"what": "neuron", "layer": layer, "neuron": neuron, "tau": value})
    for layer, (weight, teleported) in enumerate(zip(before, after, strict=True), 1):
        for head, tails in enumerate(weight.tolist()):
            for tail, value in enumerate(tails):
                place = {"what": "edge", "layer": layer, "neuron": head, "source": tail}
                rows.append(place | {"weight": value, "teleported": teleported[head, tail].item()})
    return pd.DataFrame(rows)


def _network(widths: Sequence[int], seed: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        linear = nn.Linear(fan_in, fan_out, bias=False, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.normal_(generator=generator)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _taus(before: Sequence[Tensor], after: Sequence[Tensor]) -> list[Tensor]:
    """The change of basis of each layer's neurons, read off the weights: ``w' = w tau_b / tau_a``, inputs carry 1."""
    taus = [torch.ones(before[0].shape[1], dtype=torch.float64)]
    for old, new in zip(before, after, strict=True):
        taus.append((new / old)[:, 0] * taus[-1][0])
    return taus
