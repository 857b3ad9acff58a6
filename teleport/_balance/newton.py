"""The minimum of a :class:`LogSum`, by Newton's method with conjugate gradients.

Coordinate descent converges too, but slowly on deep networks: a change at one layer reaches a layer k further on after
k sweeps, so that the number of sweeps grows with the square of the depth. A Newton step solves for all factors at once;
conjugate gradients need products with the second derivative alone, of the cost of touching each weight twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from teleport._balance.log_sum import LogSum

NEAR = 0.25
"""Steps of separate variables are taken until none is longer: they are cheap, and bounded by no scale."""

SWEEPS = 100
"""Steps of separate variables at most."""

LONGEST = 2.0
"""Of a first Newton step in one variable; twice as far after each that is taken whole."""

STEPS = 100
"""Newton steps at most."""

SETTLED = 1e-9
"""Below a step of this length, rounding of the criterion hides whether it falls, and Newton's method converges."""

INNER = 300
"""Products of the second derivative per Newton step at most; a step that is cut short still descends."""

CONVERGED = 1e-15


@dataclass(frozen=True)
class Minimum:
    """Where a minimisation ended.

    Attributes:
        x: ``[variables]``.
        steps: that were taken.
    """

    x: Tensor
    steps: int


def minimum(function: LogSum) -> Minimum:
    """The minimum, from ``x = 0``. Directions along which the function is constant are not moved in."""
    x, last, longest = _near(function), math.inf, LONGEST
    for step in range(STEPS):
        direction, descent = _newton(function, x)
        length = _largest(direction)
        if length <= CONVERGED or (length <= SETTLED and length >= last / 2):
            return Minimum(x, step)
        if length <= SETTLED:
            x = x + direction
        else:
            share = min(1.0, longest / length)
            moved, halvings = _shorter(function, x, share * direction, share * descent)
            x = moved if halvings is not None else x + function.separate_step(x)
            longest = LONGEST if halvings is None else 2 * longest / 2**halvings
        last = length
    return Minimum(x, STEPS)


def _near(function: LogSum) -> Tensor:
    """Near the minimum, where Newton's method is fast."""
    x = torch.zeros_like(function.slope)
    for _ in range(SWEEPS):
        step = function.separate_step(x)
        x = x + step
        if not _largest(step) > NEAR:
            break
    return x


def _largest(step: Tensor) -> float:
    return float(step.abs().max()) if len(step) else 0.0


def _newton(function: LogSum, x: Tensor) -> tuple[Tensor, float]:
    """The Newton step, and how fast the function changes along it; zero where a variable has no term."""
    gradient, diagonal, total = function.around(x)
    if not total > 0:
        return torch.zeros_like(x), 0.0
    mean, diagonal = gradient / total, diagonal / total
    slope = mean - function.slope
    inverse = torch.where(diagonal > 0, 1 / diagonal, 0)

    def product(vector: Tensor) -> Tensor:
        return function.curvature(x, vector) / total - mean * (mean @ vector)

    direction = torch.zeros_like(x)
    residual = -slope
    scaled = inverse * residual
    along, square = scaled, float(residual @ scaled)
    enough = square * min(1e-2, square)
    for _ in range(min(INNER, 10 * len(x))):
        if square <= enough or square <= 0:
            break
        image = product(along)
        bend = float(along @ image)
        if not bend > 1e-14 * float(along @ (along * diagonal)):  # constant along it, up to rounding
            break
        direction = direction + square / bend * along
        residual = residual - square / bend * image
        scaled = inverse * residual
        square, before = float(residual @ scaled), square
        along = scaled + square / before * along
    return direction, float(slope @ direction)


def _shorter(function: LogSum, x: Tensor, direction: Tensor, descent: float) -> tuple[Tensor, int | None]:
    """The longest of the steps ``direction / 2^k`` that lowers the function as a convex one must: its end and k."""
    start = function.value(x)
    for halvings in range(50):
        length = 0.5**halvings
        trial = x + length * direction
        if function.value(trial) <= start + 1e-4 * length * descent:
            return trial, halvings
    return x, None
