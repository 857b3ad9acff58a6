"""A model as a point of its weight space: parameters, gradients and displacements, one vector each."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

LossFn = Callable[[nn.Module, Any], Tensor]

Factors = Mapping[nn.Parameter, Tensor]
"""What a change of basis multiplies each parameter by, in its shape or one that broadcasts to it; others stay."""


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The axes of the weight space: all parameters that require a gradient."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """All elements one after the other, [P]."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def gradient(model: nn.Module, batch: Any, loss_fn: LossFn, training: bool = True) -> list[Tensor]:
    """The gradient of a batch's loss, a tensor for each of :func:`trainable`; zeros where it has no part in the loss.

    The model and the global random state stay as they are, so that every call sees the same dropout.

    Args:
        model: any module.
        batch: what ``loss_fn`` takes.
        loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
        training: whether batch norm standardises by the batch and dropout is on, as when a network learns.
    """
    looked_at = copy.deepcopy(model).train(training)  # batch norm writes to its statistics behind autograd's back
    parameters = trainable(looked_at)
    with torch.random.fork_rng(), torch.enable_grad():
        found = torch.autograd.grad(loss_fn(looked_at, batch), parameters, allow_unused=True)
    return [torch.zeros_like(parameter) if of is None else of for parameter, of in zip(parameters, found, strict=True)]


def displacement(model: nn.Module, factors: Factors) -> Tensor:
    """``V - W``, [P]: how far the change of basis ``factors`` moves ``model``, which stays where it is."""
    one = torch.ones(())
    return flatten(parameter * (factors.get(parameter, one) - 1) for parameter in trainable(model))


def unit(vector: Tensor) -> Tensor:
    """A vector [P] at length 1, nan where it is zero."""
    return vector / torch.linalg.vector_norm(vector)


def angle(u: Tensor, v: Tensor) -> float:
    """The angle between two unit vectors [P], in degrees."""
    return math.degrees(torch.acos(torch.dot(u, v).clamp(-1, 1)).item())


def norm(tensors: Sequence[Tensor]) -> float:
    """The Euclidean norm over all elements of all tensors, summed in double precision."""
    return math.sqrt(sum(tensor.detach().double().square().sum().item() for tensor in tensors))
