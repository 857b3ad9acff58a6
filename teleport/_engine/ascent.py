"""Steps of an ascent along given directions: whole, or each to the cap on the gradient norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from teleport._engine.batch_loss import BatchLoss, Point
from teleport._engine.capped_step import Line, capped_step, out_of_room
from teleport._engine.contract import StepMonitor, unmonitored
from teleport._engine.finiteness import all_finite, not_finite_along, not_finite_at
from teleport._engine.landing import Shape
from teleport._engine.report import BatchReport, StepRecord
from teleport._engine.statuses import Stopped
from teleport._spaces.norms import product_of


def representable(length: float, parameters: Sequence[nn.Parameter]) -> float:
    """``length``, or the largest factor that torch can multiply the directions of these parameters by."""
    exact = all(parameter.dtype in (torch.float64, torch.complex128) for parameter in parameters)
    return min(length, torch.finfo(torch.float64 if exact else torch.float32).max)


def _better(score: Callable[[Point], float], start: Point) -> Callable[[Point], bool]:
    before = score(start)
    return lambda point: score(point) > before


@torch.no_grad()
def _advance(parameters: Sequence[nn.Parameter], directions: Sequence[Tensor], length: float) -> None:
    """``W + length D`` in place."""
    for parameter, direction in zip(parameters, directions, strict=True):
        parameter.add_(direction, alpha=length)


@dataclass
class Ascent:
    """The result of an ascent: its first and last point, the number of steps, the status, and one record per step.

    ``reason`` names what is not finite, if that ended it; without any step the batch is refused.
    """

    start: Point
    end: Point
    steps: int
    stopped: Stopped
    trace: list[StepRecord]
    reason: str = ""

    @classmethod
    def refused(cls, start: Point, reason: str) -> Ascent:
        """No step, as something is not finite."""
        return cls(start, start, 0, Stopped.NOT_FINITE, [StepRecord(0, float(start.loss), start.norm)], reason)

    def report(self) -> BatchReport:
        """The report of the batch."""
        return BatchReport(
            loss_before=float(self.start.loss),
            loss_after=float(self.end.loss),
            gradient_norm_before=self.trace[0].gradient_norm,
            gradient_norm_after=self.end.norm,
            steps=self.steps,
            stopped=self.stopped,
            accepted=not self.reason or self.steps > 0,
            reason=self.reason,
            trace=self.trace,
        )


def ascend(
    batch_loss: BatchLoss,
    parameters: Sequence[nn.Parameter],
    direction: Callable[[Point], Sequence[Tensor]],
    *,
    lr: float,
    steps: int,
    cap: float,
    rule: str,
    start: Point | None = None,
    moving: Sequence[nn.Parameter] | None = None,
    score: Callable[[Point], float] | None = None,
    slope: Callable[[Point], float] | None = None,
    unit: float | None = None,
    shape: Shape | None = None,
    monitor: StepMonitor = unmonitored,
) -> Ascent:
    """Take up to ``steps`` steps along ``direction``, in place.

    Args:
        batch_loss: the loss whose gradient norm the cap is on.
        parameters: those that move.
        direction: one tensor per moving parameter, at a point whose gradients have a graph.
        lr: the length of a step, in units of the direction or, with ``unit``, in that unit whatever the direction.
        steps: K.
        cap: the largest gradient norm.
        rule: ``"fixed"`` takes each step whole and stops once the norm is above the cap (Algorithm 1); ``"cap"``
            shortens steps, see :func:`capped_step`.
        start: the point at the current parameters, with a graph if ``steps > 0``; ``None`` evaluates it.
        moving: the model's parameters that move with ``parameters``, if these are others.
        score: the value at a point that no step of the rule ``"cap"`` may lower; ``None`` for the gradient norm.
        slope: the derivative of ``1/2 |grad L|^2`` along a direction D at a point, in units of ``|D|^2``; ``None`` if
            it is not known.
        unit: the distance that an ``lr`` of 1 moves the parameters; ``None`` for an ``lr`` in units of the direction.
        shape: of the norm along earlier lines; it learns from these.
        monitor: told of the start and of each step; ``True`` ends the ascent there.
    """
    start = point = start or batch_loss.point(steps > 0)
    norm, moving = point.norm, parameters if moving is None else moving
    trace = [StepRecord(0, float(point.loss), norm)]
    stopped, taken, reason = Stopped.STEPS_DONE, 0, ""
    if monitor(trace[0]):
        return Ascent(start, point, 0, Stopped.CALLBACK, trace)
    if reason := not_finite_at(batch_loss, start, moving):
        return Ascent.refused(start, reason)
    step_along = _Step(batch_loss, parameters, direction, lr, cap, rule, score, slope, unit, shape or Shape())
    for step in range(1, steps + 1):
        if out_of_room(norm, cap, rule):
            stopped = Stopped.ABOVE_CAP if taken == 0 else Stopped.CAP_REACHED
            break
        point, ended = step_along(point, norm, step < steps)
        if ended is not None:
            stopped = ended
            if ended == Stopped.NOT_FINITE:
                reason = not_finite_along(batch_loss, moving)
            break
        norm, taken = point.norm, step
        trace.append(StepRecord(step, float(point.loss), norm))
        if not math.isfinite(norm):
            stopped = Stopped.NOT_FINITE
            break
        if monitor(trace[-1]):
            stopped = Stopped.CALLBACK
            break
    return Ascent(start, point, taken, stopped, trace, reason)


@dataclass(frozen=True)
class _Step:
    """One step along the direction at a point; the settings are those of :func:`ascend`."""

    batch_loss: BatchLoss
    parameters: Sequence[nn.Parameter]
    direction: Callable[[Point], Sequence[Tensor]]
    lr: float
    cap: float
    rule: str
    score: Callable[[Point], float] | None
    slope: Callable[[Point], float] | None
    unit: float | None
    shape: Shape

    def __call__(self, point: Point, norm: float, more: bool) -> tuple[Point, Stopped | None]:
        """Step from ``point``.

        Args:
            point: at the current parameters, with a graph.
            norm: its gradient norm.
            more: whether another step may follow, which needs a graph.

        Returns:
            the point at the current parameters, and why no step was taken, or ``None``.
        """
        batch_loss, cap, rule = self.batch_loss, self.cap, self.rule
        directions = self.direction(point)
        if batch_loss.group.anywhere(not all_finite(directions)):
            return point, Stopped.NOT_FINITE
        needed = self.unit is not None or (self.slope is not None and rule == "cap")
        square = batch_loss.group.totals([product_of(directions, directions)])[0] if needed else 0.0
        length = self.lr if self.unit is None else self.lr * self.unit / (math.sqrt(square) or 1.0)
        length = representable(length, self.parameters)
        if rule == "fixed":
            _advance(self.parameters, directions, length)
            directions = []
            reached: Point | None = batch_loss.point(more).forget_if(batch_loss.lean)
        else:
            line = Line(self.parameters, directions, batch_loss.known)
            better = None if self.score is None else _better(self.score, point)
            rise = self.slope(point) * square if self.slope else None
            length, reached = capped_step(batch_loss, line, length, norm, cap, more, better, rise, self.shape)
            if length == 0:
                return batch_loss.point(False), Stopped.NO_ASCENT
        if reached is None:
            reached = batch_loss.point(more).forget_if(batch_loss.lean)
        elif more and not reached.differentiable and not out_of_room(reached.norm, cap, rule):
            reached = batch_loss.point(True)
        return reached, None
