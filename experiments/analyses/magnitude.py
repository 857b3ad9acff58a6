"""How a change of basis scales a network's gradient (Armenta et al., section 5.1)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments.analyses.space import Factors, LossFn, gradient, norm, trainable


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
    """Of ``model`` where it stands; ``gradients`` as from :func:`~experiments.analyses.space.gradient`."""
    return Magnitudes(norm(trainable(model)), norm(gradients))


class Transformed:
    """Those after changes of basis, by Theorem 5.1: weights are multiplied, gradients divided by their factors.

    What has the same factor is summed once, so that the many weights of a kernel cost no more than one.

    Args:
        model: where it stands now.
        gradients: there, as from :func:`~experiments.analyses.space.gradient`.
    """

    def __init__(self, model: nn.Module, gradients: Sequence[Tensor]) -> None:
        self._squares = {
            parameter: (parameter.detach().double().square(), of.double().square())
            for parameter, of in zip(trainable(model), gradients, strict=True)
        }

    def __call__(self, factors: Factors) -> Magnitudes:
        """Those after ``factors``; their shapes are the same in every call."""
        weights = moved = 0.0
        for parameter, (of_weight, of_gradient) in self._squares.items():
            if parameter in factors:
                square = factors[parameter].double().square()
                if of_weight.shape != square.shape:
                    of_weight, of_gradient = (each.sum_to_size(square.shape) for each in (of_weight, of_gradient))
                    self._squares[parameter] = of_weight, of_gradient
                of_weight, of_gradient = of_weight * square, of_gradient / square
            weights += of_weight.sum().item()
            moved += of_gradient.sum().item()
        return Magnitudes(math.sqrt(weights), math.sqrt(moved))


def backpropagated(model: nn.Module, batch: Any, loss_fn: LossFn, factors: Factors) -> Magnitudes:
    """Those of a copy of ``model`` that was teleported by ``factors``, its gradient computed anew."""
    teleported = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, copied in zip(model.parameters(), teleported.parameters(), strict=True):
            if parameter in factors:
                copied.mul_(factors[parameter].to(copied.dtype))
    return magnitudes(teleported, gradient(teleported, batch, loss_fn))


def expected_gain(range: float) -> float:
    """The root of ``E[(tau_a / tau_b)^2]`` for independent tau ~ U(1 - range, 1 + range), 0 <= range < 1.

    By it the gradient of the weights between two hidden layers grows in the root of the mean square.
    """
    return float(((1 + range**2 / 3) / (1 - range**2)) ** 0.5)
