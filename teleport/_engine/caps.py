"""Caps on the gradient norm."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from teleport._engine.batch_loss import BatchLoss
from teleport._spaces.norms import half_squared_norm


class Caps:
    """The cap on the gradient norm: absolute, relative to the mean norm before the event, or the smaller of both."""

    def __init__(self, cap: float | None, relative_cap: float | None, objectives: Sequence[BatchLoss]) -> None:
        self.absolute = math.inf if cap is None else cap
        self.factor = relative_cap
        self.before: list[dict[nn.Parameter, float]] = []  # per batch: 1/2 |grad|^2 of each parameter
        if self.factor is not None:
            for objective in objectives:
                gradients = objective.point(differentiable=False).gradients
                halves = [float(half_squared_norm([gradient])) for gradient in gradients]
                self.before.append(dict(zip(objective.parameters, halves, strict=True)))

    def over(self, parameters: list[nn.Parameter]) -> float:
        """The cap on the gradient norm over these parameters."""
        if self.factor is None:
            return self.absolute
        norms = [math.sqrt(2 * sum(halves[parameter] for parameter in parameters)) for halves in self.before]
        finite = [norm for norm in norms if math.isfinite(norm)]  # batches of others are refused
        return min(self.absolute, self.factor * sum(finite) / len(finite)) if finite else self.absolute
