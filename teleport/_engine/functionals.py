"""Objectives besides the gradient: the distance to a point, and any function of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from teleport._engine.batch_loss import BatchLoss, Point
from teleport._engine.objectives import TeleportObjective
from teleport._spaces.norms import half_squared_norm


@dataclass(frozen=True, eq=False)
class Distance(TeleportObjective):
    """``1/2 |w - p|^2``, half the squared distance of the trainable parameters from a point p.

    Args:
        point: p, one tensor per trainable parameter, in the order of ``model.parameters()``.
        ascended: away from the point, or towards it.
    """

    point: Sequence[Tensor]
    ascended: bool = False
    name = "distance"

    def value(self, loss: BatchLoss, point: Point) -> float:
        """``1/2 |w - p|^2``."""
        with torch.no_grad():
            return float(half_squared_norm(self._difference(loss)))

    def direction(self, loss: BatchLoss, point: Point, moving: Sequence[nn.Parameter]) -> list[Tensor]:
        """``w - p``."""
        of = dict(zip(loss.parameters, self._difference(loss), strict=True))
        return [of[parameter] for parameter in moving]

    def _difference(self, loss: BatchLoss) -> list[Tensor]:
        given, own = [value.shape for value in self.point], [parameter.shape for parameter in loss.parameters]
        if given != own:
            raise ValueError(
                f"the point of a Distance must have the shapes of the {len(own)} trainable parameters of the model, in "
                f"their order, got {len(given)} tensors"
                + (f" of shapes {[list(shape) for shape in given[:3]]} ..." if len(given) == len(own) else "")
            )
        pairs = zip(loss.parameters, self.point, strict=True)
        return [parameter.detach() - value.detach().to(parameter) for parameter, value in pairs]


@dataclass(frozen=True, eq=False)
class Functional(TeleportObjective):
    """Any function of the parameters: an output on other data, a regulariser, a loss on a second task.

    Args:
        function: called without arguments, it returns a scalar tensor that depends on the model's current parameters,
            ``lambda: model(inputs).var()`` for example. In a group of processes it is the mean of their values.
        ascended: towards larger or towards smaller values.
    """

    function: Callable[[], Tensor]
    ascended: bool = True
    name = "functional"

    def value(self, loss: BatchLoss, point: Point) -> float:
        """The function at the current parameters."""
        return loss.group.mean_of([float(self._evaluate().detach())])[0]

    def direction(self, loss: BatchLoss, point: Point, moving: Sequence[nn.Parameter]) -> list[Tensor]:
        """Its gradient, zero for parameters that it does not depend on."""
        with torch.enable_grad():
            value = self._evaluate()
        if not value.requires_grad:
            return [torch.zeros_like(parameter) for parameter in moving]
        found = torch.autograd.grad(value, list(moving), allow_unused=True, materialize_grads=True)
        return loss.group.mean(found)

    def _evaluate(self) -> Tensor:
        value = self.function()
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise ValueError("the function of a Functional must return a scalar tensor")
        return value.reshape(())
