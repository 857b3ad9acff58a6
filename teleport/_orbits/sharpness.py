"""Measures of sharpness, each with the symmetries that leave it as it is.

A change of basis ``D`` turns the Hessian ``H`` into ``D^-T H D^-1``: its spectrum stays under permutations, signs and
rotations, and changes under factors and general matrices (Dinh et al. 2017). The spectrum of ``|w| H |w|``, of adaptive
sharpness, stays under factors (Kwon et al. 2021). At the point of least norm on the orbit, which is the same for all
points of the orbit up to rotations, every one of these measures is of the orbit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from teleport._engine.batch_loss import BatchLoss

SETTLED = 1e-5
"""A power iteration ends once two steps in turn change the eigenvalue by no more than this share."""

RIGID = ("permutations", "signs", "rotations")
SCALED = ("permutations", "signs", "scalings")
ALL = ("permutations", "signs", "rotations", "scalings", "general matrices")


@dataclass(frozen=True)
class SharpnessMeasure:
    """One measure.

    Attributes:
        name: of the measure.
        value: at the model's parameters.
        error: the standard error of an estimate; 0 where the value is no random one.
        invariant: the symmetries of the network that leave it as it is.
    """

    name: str
    value: float
    error: float
    invariant: tuple[str, ...]

    @property
    def symmetries(self) -> str:
        """Those of ``invariant`` in words."""
        return "all symmetries" if self.invariant == ALL else ", ".join(self.invariant)


class Hessian:
    """The Hessian of a loss, times an elementwise scale on both sides.

    Args:
        loss: on one batch.
        scales: of the shapes of its parameters; ``None`` for 1.
    """

    def __init__(self, loss: BatchLoss, scales: Sequence[Tensor] | None = None) -> None:
        self.parameters, self.scales = loss.parameters, scales
        self._gradients = loss.point(differentiable=True).gradients

    @property
    def gradient_norm(self) -> float:
        """Of the loss."""
        return _norm([each.detach() for each in self._gradients])

    def product(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """With a vector, a tensor per parameter."""
        found = [
            (each, of) for each, of in zip(self._gradients, self._scaled(vector), strict=True) if each.requires_grad
        ]
        if not found:  # the loss is linear
            return [torch.zeros_like(each) for each in vector]
        outputs, weights = zip(*found, strict=True)
        products = torch.autograd.grad(
            outputs, self.parameters, weights, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return self._scaled(products)

    def largest_eigenvalue(self, iterations: int, generator: torch.Generator) -> float:
        """That of the largest magnitude, with its sign, by power iteration."""
        vector = self._drawn(generator, lambda each: torch.randn(each.shape, generator=generator))
        value, still = 0.0, 0
        for _ in range(iterations):
            length = _norm(vector)
            if not length > 0 or not math.isfinite(length):
                return 0.0 if not length > 0 else math.nan
            vector = [each / length for each in vector]
            image = self.product(vector)
            reached = sum(float((one * two).sum()) for one, two in zip(vector, image, strict=True))
            still = still + 1 if abs(reached - value) <= SETTLED * abs(reached) else 0
            value, vector = reached, image
            if still == 2:
                break
        return value

    def trace(self, probes: int, generator: torch.Generator) -> tuple[float, float]:
        """Hutchinson's estimate over random signs, with its standard error (not a number for one probe)."""
        found = []
        for _ in range(probes):
            signs = self._drawn(generator, lambda each: torch.rand(each.shape, generator=generator).round() * 2 - 1)
            image = self.product(signs)
            found.append(sum(float((one * two).sum()) for one, two in zip(signs, image, strict=True)))
        values = torch.tensor(found, dtype=torch.float64)
        error = float(values.std() / probes**0.5) if probes > 1 else math.nan
        return float(values.mean()), error

    def _drawn(self, generator: torch.Generator, draw: object) -> list[Tensor]:
        assert callable(draw)
        return [draw(each).to(each) for each in self.parameters]

    def _scaled(self, vector: Sequence[Tensor]) -> list[Tensor]:
        if self.scales is None:
            return list(vector)
        return [one * two for one, two in zip(vector, self.scales, strict=True)]


def measures(
    loss: BatchLoss, iterations: int, probes: int, generator: torch.Generator, least: bool
) -> list[SharpnessMeasure]:
    """The measures at the current parameters.

    Args:
        loss: on one batch.
        iterations: of a power iteration at most.
        probes: of a trace.
        generator: on the CPU.
        least: whether the parameters are those of least norm on the orbit; then adaptive measures, which have the same
            values anywhere but for rotations, are left out.
    """
    plain, where = Hessian(loss), " at least norm" if least else ""
    of = ALL if least else RIGID
    found = [
        SharpnessMeasure(f"gradient norm{where}", plain.gradient_norm, 0.0, of),
        SharpnessMeasure(f"largest eigenvalue{where}", plain.largest_eigenvalue(iterations, generator), 0.0, of),
        SharpnessMeasure(f"trace{where}", *plain.trace(probes, generator), of),
    ]
    del plain
    if least:
        return found
    adaptive = Hessian(loss, [each.detach().abs() for each in loss.parameters])
    return [
        *found,
        SharpnessMeasure("adaptive eigenvalue", adaptive.largest_eigenvalue(iterations, generator), 0.0, SCALED),
        SharpnessMeasure("adaptive trace", *adaptive.trace(probes, generator), SCALED),
    ]


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(each.double().square().sum()) for each in tensors))
