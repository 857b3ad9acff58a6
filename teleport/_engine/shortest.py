"""The shortest move that reaches a gradient norm, or the one of a given length that reaches the largest.

The gradient norm on a batch grows along many directions. The move of least length to a given norm is found by a power
method on the sphere (Journee et al. 2010, "Generalized power method for sparse principal component analysis"): the
gradient of ``1/2 |g|^2`` at the end of a move is the next direction of the move, from the same start. If
``1/2 |g|^2`` is convex along the moves, the norm at a given length grows, so the length at a given norm shrinks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from teleport._engine.ascent import Ascent
from teleport._engine.batch_loss import BatchLoss, Point
from teleport._engine.capped_step import Line, capped_step, out_of_room
from teleport._engine.contract import StepMonitor, unmonitored
from teleport._engine.finiteness import all_finite, not_finite_along, not_finite_at
from teleport._engine.landing import Shape
from teleport._engine.report import StepRecord
from teleport._engine.statuses import Stopped
from teleport._spaces.norms import length_of, product_of


class Metric(Protocol):
    """A positive definite quadratic form ``<U, A U>`` of moves, in place of their squared norm."""

    @property
    def reason(self) -> str:
        """Why it is not defined, in one sentence; empty if it is."""

    def steepest(self, gradient: Sequence[Tensor]) -> list[Tensor]:
        """``A^-1 gradient``: the direction of most ascent per length in the metric."""

    def length(self, move: Sequence[Tensor]) -> float:
        """``<U, A U>^1/2`` of a move U, one tensor per moving parameter."""


GAIN = 0.01
"""The least relative gain, in length or in norm, for which another direction is tried."""


def ascend_shortest(
    batch_loss: BatchLoss,
    parameters: Sequence[nn.Parameter],
    direction: Callable[[Point], Sequence[Tensor]],
    *,
    longest: float,
    steps: int,
    cap: float,
    slope: Callable[[Point], float],
    start: Point | None = None,
    shape: Shape | None = None,
    monitor: StepMonitor = unmonitored,
    metric: Metric | None = None,
) -> Ascent:
    """Move the parameters in a straight line to the cap, and improve the direction up to ``steps - 1`` times.

    Args:
        batch_loss: the loss whose gradient norm is raised, up to the cap.
        parameters: those that move.
        direction: the gradient of an increasing function of the norm, one tensor per moving parameter, at a point
            whose gradients have a graph.
        longest: the largest distance, as the norm of the move of all parameters together.
        steps: the largest number of directions.
        cap: the largest gradient norm.
        slope: the derivative of ``1/2 |grad L|^2`` along ``direction``, in units of its squared norm.
        start: the point at the current parameters, with a graph if ``steps > 0``; ``None`` evaluates it.
        shape: of the norm along earlier lines; it learns from these.
        monitor: told of the start and of each direction; ``True`` ends the ascent there.
        metric: what is to be small at the cap instead of the distance; ``None`` for the distance itself.

    Returns:
        the ascent; one step per direction that was an improvement.
    """
    start = point = start or batch_loss.point(steps > 0)
    norm = start.norm
    trace = [StepRecord(0, float(start.loss), norm)]
    ended = _before_steps(batch_loss, parameters, start, trace, steps, cap, monitor, metric)
    if ended is not None:
        return ended
    first, rise, shape = list(direction(start)), slope(start), shape or Shape()
    line = Line(parameters, _steepest(first, metric), batch_loss.known)
    best = _Move(0.0, 0.0, line.directions, start)
    stopped, reason = Stopped.STEPS_DONE, ""
    for step in range(1, steps + 1):
        more = step < steps
        if not all_finite(line.directions):
            stopped, reason = Stopped.NOT_FINITE, not_finite_along(batch_loss, parameters)
            break
        length = _longest(line.directions, longest, best.distance, metric)
        rising = rise * product_of(first, line.directions)
        move = _land(batch_loss, line, length, norm, cap, rising, shape, metric)
        if not move.improves(best, cap):
            line.directions = best.directions
            line.move_to(best.length)
            if step == 1:
                stopped, point = Stopped.NO_ASCENT, batch_loss.point(False)
            break
        if more and not move.end.differentiable:
            move.end = batch_loss.point(True)
        best, point = move, move.end
        trace.append(StepRecord(step, float(point.loss), point.norm))
        if monitor(trace[-1]):
            stopped = Stopped.CALLBACK
            break
        if more:
            line.directions = _steepest(list(direction(point)), metric)
    if stopped == Stopped.STEPS_DONE and out_of_room(point.norm, cap, "cap"):
        stopped = Stopped.CAP_REACHED
    return Ascent(start, point, len(trace) - 1, stopped, trace, reason)


def _before_steps(
    batch_loss: BatchLoss,
    parameters: Sequence[nn.Parameter],
    start: Point,
    trace: list[StepRecord],
    steps: int,
    cap: float,
    monitor: StepMonitor,
    metric: Metric | None,
) -> Ascent | None:
    """The ascent if it ends before its first step, else ``None``."""
    if monitor(trace[0]):
        return Ascent(start, start, 0, Stopped.CALLBACK, trace)
    if reason := not_finite_at(batch_loss, start, parameters):
        return Ascent.refused(start, reason)
    if steps == 0 or out_of_room(start.norm, cap, "cap"):
        return Ascent(start, start, 0, Stopped.ABOVE_CAP if steps else Stopped.STEPS_DONE, trace)
    if metric is not None and metric.reason:
        return Ascent.refused(start, metric.reason)
    return None


@dataclass
class _Move:
    """A move by ``length`` times the ``directions``, by ``distance`` in all, and the point at its end."""

    length: float
    distance: float
    directions: list[Tensor]
    end: Point

    def improves(self, other: _Move, cap: float) -> bool:
        """Whether it is shorter than ``other`` and at the cap as well, or has a larger norm at most at the cap."""
        if self.length == 0 or not math.isfinite(self.end.norm):
            return False
        if out_of_room(other.end.norm, cap, "cap"):
            return out_of_room(self.end.norm, cap, "cap") and self.distance < (1 - GAIN) * other.distance
        return self.end.norm > (1 + GAIN) * other.end.norm or (other.length == 0 and self.end.norm > other.end.norm)


def _steepest(gradient: list[Tensor], metric: Metric | None) -> list[Tensor]:
    return gradient if metric is None else metric.steepest(gradient)


def _size(move: list[Tensor], metric: Metric | None) -> float:
    return length_of(move) if metric is None else metric.length(move)


def _longest(directions: list[Tensor], longest: float, distance: float, metric: Metric | None) -> float:
    """The largest factor on ``directions``: by norm up to ``longest``, in the metric up to ``distance`` if above 0."""
    size = _size(directions, metric)
    if size == 0:
        return 0.0
    if metric is None:
        return (distance or longest) / size
    whole = longest / length_of(directions)
    return min(whole, distance / size) if distance else whole


def _land(
    batch_loss: BatchLoss,
    line: Line,
    longest: float,
    norm: float,
    cap: float,
    slope: float,
    shape: Shape,
    metric: Metric | None,
) -> _Move:
    """The move along ``line`` to the cap, or by ``longest`` times its directions."""
    if longest == 0:
        return _Move(0.0, 0.0, line.directions, Point(torch.zeros(()), [], torch.zeros(())))
    length, end = capped_step(batch_loss, line, longest, norm, cap, False, slope=slope, shape=shape)
    return _Move(length, length * _size(line.directions, metric), line.directions, end or batch_loss.point(False))
