"""A model as a point of its weight space: parameters, gradients, displacements and random changes of basis.

A vector of the weight space has one element per element of a trainable parameter, [P]. This module imports torch:
subjects import it inside their measuring functions.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn

from teleport import ChangeOfBasis

LossFn = Callable[[nn.Module, Any], Tensor]

Factors = Mapping[nn.Parameter, Tensor]
"""Parameter -> the factor that a change of basis multiplies it by, of its shape or one that broadcasts to it.
Parameters that are not listed are unchanged."""


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """All parameters that require a gradient: the axes of the weight space."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """All elements in one vector, [P]."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def gradient(model: nn.Module, batch: Any, loss_fn: LossFn, training: bool = True) -> list[Tensor]:
    """The gradient of the loss on a batch, one tensor per :func:`trainable` parameter.

    A parameter that the loss does not depend on has a gradient of zeros. The model and the global random state are not
    changed, so that every call sees the same dropout.

    Args:
        model: any module.
        batch: the second argument of ``loss_fn``.
        loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
        training: whether batch norm uses the statistics of the batch and dropout is active, as in training.
    """
    copied = copy.deepcopy(model).train(training)  # batch norm updates its running statistics in the forward pass
    parameters = trainable(copied)
    with torch.random.fork_rng(), torch.enable_grad():
        found = torch.autograd.grad(loss_fn(copied, batch), parameters, allow_unused=True)
    return [torch.zeros_like(parameter) if of is None else of for parameter, of in zip(parameters, found, strict=True)]


def displacement(model: nn.Module, factors: Factors) -> Tensor:
    """``V - W``, [P]: the displacement of ``model`` by the change of basis ``factors``; the model is not changed."""
    one = torch.ones(())
    return flatten(parameter * (factors.get(parameter, one) - 1) for parameter in trainable(model))


def unit(vector: Tensor) -> Tensor:
    """``vector`` [P] scaled to length 1; nan for a zero vector."""
    return vector / torch.linalg.vector_norm(vector)


def angle(u: Tensor, v: Tensor) -> float:
    """The angle between two unit vectors [P], in degrees."""
    return math.degrees(torch.acos(torch.dot(u, v).clamp(-1, 1)).item())


def norm(tensors: Sequence[Tensor]) -> float:
    """The Euclidean norm over all elements of all tensors, summed in double precision."""
    return math.sqrt(sum(tensor.detach().double().square().sum().item() for tensor in tensors))


class RandomChanges:
    """Random intra-landscape changes of basis of one model, which is not changed; its quiver is found once.

    Args:
        model: any module.
        inputs: a batch of its inputs.

    Raises:
        ValueError: the model has no channel that may be scaled.
    """

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        self.quiver = ChangeOfBasis().capture(model, inputs)
        if not self.quiver.scaled:
            raise ValueError("no channel of the model may be scaled, so that it has no change of basis")

    def draw(self, *, range: float, count: int, seed: int) -> Iterator[Factors]:
        """``count`` changes with tau ~ U(1 - range, 1 + range), range < 1; the same seed gives the same changes."""
        method = ChangeOfBasis(range=range, seed=seed)
        for _ in repeat(None, count):
            tau = method.sample(self.quiver).tau
            yield {scaled.parameter: scaled.factors(tau) for scaled in self.quiver.scaled.values()}
