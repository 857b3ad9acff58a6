"""One step along a path, to a cap on the gradient norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from teleport._engine.batch_loss import NOTHING, BatchLoss, Point, copy_of
from teleport._engine.landing import Shape, SquaredNormAlongPath

BELOW_CAP = 0.98
"""A shortened step is accepted if its gradient norm is between this share of the cap and the cap."""

TRIALS = 24
"""The largest number of evaluations per line search."""

INTERPOLATED = 8
"""The number of evaluations after which the interval is halved instead of interpolated."""

FAR = 1e4
"""A norm so many times the cap says nothing of the polynomial near the cap."""


class Path(Protocol):
    """A curve in parameter space that starts at the current parameters, at length 0."""

    def move_to(self, length: float) -> None:
        """Set the parameters to those at ``length``."""


class Line:
    """The straight line from the current parameters: ``W(t) = W + t D``; ``known`` as of :func:`copy_of`."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        directions: Sequence[Tensor],
        known: Mapping[nn.Parameter, Tensor] = NOTHING,
    ) -> None:
        self.parameters = list(parameters)
        self.directions = list(directions)
        self.start = [copy_of(parameter, known) for parameter in self.parameters]

    @torch.no_grad()
    def move_to(self, length: float) -> None:
        """Set the parameters to ``W + length D``."""
        for parameter, start, direction in zip(self.parameters, self.start, self.directions, strict=True):
            if length:
                torch.add(start, direction, alpha=length, out=parameter)
            else:
                parameter.copy_(start)


def capped_step(
    batch_loss: BatchLoss,
    line: Path,
    length: float,
    norm: float,
    cap: float,
    differentiable: bool,
    better: Callable[[Point], bool] | None = None,
    slope: float | None = None,
    shape: Shape | None = None,
) -> tuple[float, Point | None]:
    """Step along ``line`` so that the gradient norm grows (or the point is ``better``) and stays at most at ``cap``.

    The whole step (``length``) is taken if the norm stays below the cap. Otherwise it is shortened until the norm is
    within 2 % below the cap; if no such length is found, the best length below the cap is taken. A step is also
    shortened if the norm falls (or the point is not ``better``), to the first length seen at which it does not, or if
    it is not finite. The lengths to try come from a polynomial through the norms seen (``landing.py``).

    Args:
        batch_loss: the loss whose gradient norm is capped.
        line: starts at the point with gradient norm ``norm``, below the cap.
        length: of the whole step.
        norm: the gradient norm at the start.
        cap: the largest gradient norm allowed, infinite for none.
        differentiable: whether the gradients after a whole step need their graph.
        better: whether the point at the current parameters is better than the start; ``None`` for a larger norm.
        slope: the derivative of ``1/2 |grad|^2`` by the length at the start, if it is known.
        shape: of the norm along earlier lines; it learns from this one.

    Returns:
        the length taken (0 if no step is better) and the point there, or ``None`` if it was not the last one evaluated.
        The parameters are those at that length.
    """
    low, high = (0.0, norm), (math.inf, math.inf)  # (length, norm): the best below the cap, the nearest too long one
    curve, met_cap = SquaredNormAlongPath(norm, slope, shape), False
    trial = min(length, curve.first(_target(cap)))
    for attempt in range(TRIALS):
        line.move_to(trial)
        point = batch_loss.point(differentiable and trial == length).forget_if(batch_loss.lean)
        reached = point.norm
        curve.add(trial, reached)
        gained = reached > norm if better is None else math.isfinite(reached) and better(point)
        if reached == norm and not gained:  # nothing to gain: the direction is zero, or too short to be felt
            break
        if gained and math.isfinite(reached) and reached <= cap:
            fell = not (met_cap or math.isinf(high[0]))
            if reached >= BELOW_CAP * cap:
                curve.landed(trial)
                return trial, point
            if fell or trial == length:
                return trial, point
            low = (trial, reached)
        elif math.isfinite(reached) and reached <= cap:  # past a maximum
            high = (trial, math.inf)
            if low[0] > 0 and not met_cap:
                break
        else:
            met_cap = True
            high = (trial, reached if math.isfinite(reached) else math.inf)
        trial = _next_trial(curve, low, high, cap, length, attempt)
        if trial == low[0]:  # the interval has no other number in it
            break
    line.move_to(low[0])
    return low[0], None


def out_of_room(norm: float, cap: float, rule: str) -> bool:
    """Whether a gradient norm leaves no room: above the cap or, by the rule ``"cap"``, within 2 % below it.

    At a norm of 0 a relative cap is 0 as well; that nothing moves there is for the method to find.
    """
    return norm > cap or (rule == "cap" and norm >= BELOW_CAP * cap and norm > 0)


def _target(cap: float) -> float:
    """The norm to land on: the middle of the range that is accepted."""
    return 0.5 * (1 + BELOW_CAP) * cap


def _next_trial(
    curve: SquaredNormAlongPath,
    low: tuple[float, float],
    high: tuple[float, float],
    cap: float,
    length: float,
    attempt: int,
) -> float:
    """The next length to try, between ``low`` and ``high`` or, before a length was too long, up to ``length``."""
    if math.isinf(high[0]):  # the terms of the polynomial that are not seen yet are above 0: aim below the middle
        found = curve.length_at((0.75 * BELOW_CAP + 0.25) * cap, low[0], length)
        return length if found is None or attempt >= INTERPOLATED else min(max(found, 1.01 * low[0]), length)
    width = high[0] - low[0]
    if math.isinf(high[1]) or math.isinf(cap) or attempt >= INTERPOLATED:
        return low[0] + 0.5 * width
    found = curve.length_at(_target(cap), low[0], high[0])
    if found is None or high[1] > FAR * cap:  # the log of the norm is interpolated to the cap
        if low[1] <= 0:
            return low[0] + 0.5 * width
        share = math.log(_target(cap) / low[1]) / math.log(high[1] / low[1])
        return low[0] + min(max(share, 0.1), 0.9) * width
    return min(max(found, low[0] + 0.01 * width), high[0] - 0.01 * width)
