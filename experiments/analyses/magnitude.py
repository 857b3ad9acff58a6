"""How a change of basis scales a network's gradient (Armenta et al., section 5.1)."""

from __future__ import annotations

import copy
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


def transformed(model: nn.Module, gradients: Sequence[Tensor], factors: Factors) -> Magnitudes:
    """Those after the change of basis ``factors`` by Theorem 5.1: weights times, gradients divided by their factors."""
    parameters = trainable(model)
    known = [factors.get(parameter) for parameter in parameters]
    weights = [p.detach() if f is None else p.detach() * f for p, f in zip(parameters, known, strict=True)]
    moved = [g if f is None else g / f for g, f in zip(gradients, known, strict=True)]
    return Magnitudes(norm(weights), norm(moved))


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
