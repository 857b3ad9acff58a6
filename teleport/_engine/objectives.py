"""What a teleport makes larger or smaller.

An objective is a function of the parameters, built from the loss on one batch and its gradient ``g`` over the
parameters that the gradient norm is over. Each has a value and a gradient; the cap on the gradient norm is apart.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from teleport._arguments import check_choice, check_finite, check_positive
from teleport._engine.batch_loss import BatchLoss, Point
from teleport._engine.capped_step import Line
from teleport._spaces.norms import half_squared_norm, inner

__all__ = [
    "OBJECTIVES",
    "Curvature",
    "LogGradientNorm",
    "LossAfterStep",
    "Sharpness",
    "SquaredGradientNorm",
    "TeleportObjective",
    "half_squared_norm",
    "objective_of",
]


class TeleportObjective(ABC):
    """One objective; ``ascended`` says whether a teleport raises it or lowers it.

    ``of_norm`` says that it is a function of a point's gradient norm, whatever loss and gradients that has.
    """

    name: str
    ascended: bool = True
    of_norm: bool = False

    @abstractmethod
    def value(self, loss: BatchLoss, point: Point) -> float:
        """The objective at ``point``, where the parameters of ``loss`` stand."""

    @abstractmethod
    def direction(self, loss: BatchLoss, point: Point, moving: Sequence[nn.Parameter]) -> list[Tensor]:
        """Its gradient with respect to ``moving``, parameters among those of ``loss``, at a differentiable point."""

    def score(self, loss: BatchLoss, point: Point) -> float:
        """A number that is larger where the objective is better; ``point`` may lose its graph."""
        return self.value(loss, point) if self.ascended else -self.value(loss, point)

    def slope(self, point: Point) -> float:
        """The derivative of ``1/2 |g|^2`` along the way that improves the objective, in units of ``|D|^2``.

        D is the objective's gradient; 0 if the derivative is not known.
        """
        return 0.0


@dataclass(frozen=True)
class SquaredGradientNorm(TeleportObjective):
    """``1/2 |g|^2`` (Wu et al. 2025, equation 4); its gradient is ``H g``, one Hessian-vector product.

    Args:
        ascended: towards larger or towards smaller gradient norms.
    """

    ascended: bool = True
    name = "squared_gradient_norm"
    of_norm = True

    def value(self, loss: BatchLoss, point: Point) -> float:
        """``1/2 |g|^2``."""
        return point.norm**2 / 2

    def direction(self, loss: BatchLoss, point: Point, moving: Sequence[nn.Parameter]) -> list[Tensor]:
        """``H g``."""
        return loss.ascent_direction(point, moving)

    def score(self, loss: BatchLoss, point: Point) -> float:
        """The norm, which tells points apart that its square does not."""
        return point.norm if self.ascended else -point.norm

    def slope(self, point: Point) -> float:
        """1: ``1/2 |g|^2`` is the objective."""
        return 1.0 if self.ascended else -1.0


@dataclass(frozen=True)
class LogGradientNorm(TeleportObjective):
    """``1/2 log |g|^2`` (Mishkin et al. 2024); its gradient is ``H g / |g|^2``, whatever the scale of the loss.

    Args:
        ascended: towards larger or towards smaller gradient norms.
    """

    ascended: bool = True
    name = "log_gradient_norm"
    of_norm = True

    def value(self, loss: BatchLoss, point: Point) -> float:
        """``log |g|``, minus infinity at a stationary point."""
        return math.log(point.norm) if point.norm > 0 else -math.inf

    def direction(self, loss: BatchLoss, point: Point, moving: Sequence[nn.Parameter]) -> list[Tensor]:
        """``H g / |g|^2``, zero at a stationary point."""
        square = point.norm**2 or 1.0
        return [part / square for part in loss.ascent_direction(point, moving)]

    def score(self, loss: BatchLoss, point: Point) -> float:
        """The norm."""
        return point.norm if self.ascended else -point.norm

    def slope(self, point: Point) -> float:
        """``|g|^2``, the derivative of ``1/2 |g|^2`` by the objective."""
        return point.norm**2 if self.ascended else -(point.norm**2)


@dataclass(frozen=True)
class Curvature(TeleportObjective):
    """``g^T H g / |g|^2``, the curvature of the loss along its gradient.

    A value takes one Hessian-vector product, the gradient differentiates once more.
    """

    ascended: bool = True
    name = "curvature"

    def value(self, loss: BatchLoss, point: Point) -> float:
        """``g^T H g / |g|^2``, zero at a stationary point."""
        here = point if point.differentiable else loss.point(True)
        return float(self._of(loss, here, create_graph=False).detach())

    def direction(self, loss: BatchLoss, point: Point, moving: Sequence[nn.Parameter]) -> list[Tensor]:
        """``(2 H H g + D^3 f[g, g]) / |g|^2 - 2 (g^T H g) H g / |g|^4``."""
        return _gradient(loss, self._of(loss, point, create_graph=True), moving)

    def _of(self, loss: BatchLoss, point: Point, create_graph: bool) -> Tensor:
        half = half_squared_norm(point.gradients)
        product = _gradient(loss, half, loss.parameters, create_graph)  # H g
        return inner(product, point.gradients) / (2 * half) if half else 0 * half


class _Displaced(TeleportObjective):
    """The loss at a point that is displaced by a function of the gradient, less ``base`` times the loss here."""

    base = 0.0

    @abstractmethod
    def displacement(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """How far each parameter of the loss is displaced, differentiable where the gradients are."""

    def value(self, loss: BatchLoss, point: Point) -> float:
        """The loss there, less ``base`` times the loss here; one evaluation."""
        line = self._line(loss, point)
        line.move_to(1.0)
        ahead = float(loss.value())
        line.move_to(0.0)
        return ahead - self.base * float(point.loss)

    def direction(self, loss: BatchLoss, point: Point, moving: Sequence[nn.Parameter]) -> list[Tensor]:
        """``(I + du/dw)^T g(w + u) - base g(w)``: a gradient there and a Hessian-vector product here.

        The point's own graph does not outlive the way to the displaced point and back, so it is made anew.
        """
        line = self._line(loss, point)
        line.move_to(1.0)
        ahead = loss.point(False).gradients
        line.move_to(0.0)
        here = loss.point(True).gradients
        pulled = _gradient(loss, inner(self.displacement(here), ahead), moving)
        place = {parameter: number for number, parameter in enumerate(loss.parameters)}
        return [
            ahead[place[parameter]] + part - self.base * here[place[parameter]].detach()
            for parameter, part in zip(moving, pulled, strict=True)
        ]

    def _line(self, loss: BatchLoss, point: Point) -> Line:
        loss.check_writable()
        return Line(loss.parameters, self.displacement([gradient.detach() for gradient in point.gradients]))


@dataclass(frozen=True)
class LossAfterStep(_Displaced):
    """``L(w - lr g)``, the loss on the batch after one step of gradient descent; it is lowered.

    Args:
        lr: the rate of that step.
    """

    lr: float = 0.01
    ascended = False
    name = "loss_after_step"

    def __post_init__(self) -> None:
        check_positive(lr=self.lr)
        check_finite(lr=self.lr)

    def displacement(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """``-lr g``."""
        return [-self.lr * gradient for gradient in gradients]


@dataclass(frozen=True)
class Sharpness(_Displaced):
    """``L(w + radius g / |g|) - L(w)``, what sharpness-aware minimisation takes for the sharpness of a minimum.

    Args:
        radius: how far up the gradient the loss is looked at.
        ascended: towards sharper or towards flatter points.
    """

    radius: float = 0.05
    ascended: bool = True
    name = "sharpness"
    base = 1.0

    def __post_init__(self) -> None:
        check_positive(radius=self.radius)
        check_finite(radius=self.radius)

    def displacement(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """``radius g / |g|``, zero at a stationary point."""
        square = inner(gradients, gradients)
        scale = self.radius / square.sqrt() if square else 0 * square
        return [(scale * gradient).to(gradient.dtype) for gradient in gradients]


OBJECTIVES = (
    *("squared_gradient_norm", "log_gradient_norm", "loss_after_step"),
    *("curvature", "-curvature", "sharpness", "-sharpness"),
)
"""Objectives by name. A leading minus lowers what is raised without it; ``loss_after_step`` is always lowered."""


def objective_of(name: str | TeleportObjective, scale: float | None = None) -> TeleportObjective:
    """The objective of a name in ``OBJECTIVES``; one that is an objective already is that.

    Args:
        name: of the objective.
        scale: the rate of ``loss_after_step``, the radius of ``sharpness``; ``None`` for their defaults.

    Raises:
        ValueError: another name, a scale that is not above 0, or one for an objective that has none.
    """
    if isinstance(name, TeleportObjective):
        if scale is not None:
            raise ValueError("objective_scale goes with the name of an objective, not with an object that has its own")
        return name
    check_choice("objective", name, OBJECTIVES)
    if scale is not None:
        check_positive(objective_scale=scale)
        check_finite(objective_scale=scale)
    ascended, plain = not name.startswith("-"), name.lstrip("-")
    if plain == "loss_after_step":
        return LossAfterStep() if scale is None else LossAfterStep(scale)
    if plain == "sharpness":
        return Sharpness(ascended=ascended) if scale is None else Sharpness(scale, ascended)
    if scale is not None:
        raise ValueError(f"objective_scale is for loss_after_step and sharpness, not for {name}")
    if plain == "curvature":
        return Curvature(ascended)
    return SquaredGradientNorm() if plain == "squared_gradient_norm" else LogGradientNorm()


def _gradient(
    loss: BatchLoss, value: Tensor, parameters: Sequence[nn.Parameter], create_graph: bool = False
) -> list[Tensor]:
    """Gradients of a scalar that was computed from ``loss``, zero where it depends on nothing; its graph is kept."""
    if not value.requires_grad:
        return [torch.zeros_like(parameter) for parameter in parameters]
    found = torch.autograd.grad(
        value,
        list(parameters),
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return loss.group.mean(found)
