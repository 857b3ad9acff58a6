"""The control for a teleport: a random move of the same length (Armenta et al., section 5.2)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments.analyses.magnitude import Magnitudes, magnitudes
from experiments.analyses.space import Factors, LossFn, displacement, gradient, trainable


@dataclass(frozen=True)
class Place:
    """A point of the weight space, looked at by one batch."""

    loss: float
    magnitudes: Magnitudes


def teleport_and_control(
    model: nn.Module, batch: Any, loss_fn: LossFn, factors: Factors, generator: torch.Generator
) -> tuple[Place, Place, Place]:
    """W where ``model`` stands, its teleport V, and the pseudo-teleport ``W + |V - W| u / |u|`` with a normal u.

    Args:
        model: any module; only looked at, in training mode.
        batch: what ``loss_fn`` takes.
        loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
        factors: of an intra-landscape change of basis.
        generator: of u, on the CPU.
    """
    way = displacement(model, factors)
    direction = torch.randn(way.shape, generator=generator).to(way)
    direction *= torch.linalg.vector_norm(way) / torch.linalg.vector_norm(direction)
    return tuple(_look(model, step, batch, loss_fn) for step in (torch.zeros_like(way), way, direction))


def _look(model: nn.Module, step: Tensor, batch: Any, loss_fn: LossFn) -> Place:
    moved = copy.deepcopy(model).train()
    parameters = trainable(moved)
    with torch.no_grad():
        for parameter, part in zip(parameters, step.split([p.numel() for p in parameters]), strict=True):
            parameter.add_(part.view_as(parameter))
        loss = loss_fn(moved, batch).item()
    return Place(loss, magnitudes(moved, gradient(moved, batch, loss_fn)))
