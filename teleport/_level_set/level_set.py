"""Level-set teleportation by linearised steps (Mishkin et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport._arguments import check_limits, check_steps
from teleport._engine.batch_loss import BatchLoss, Point
from teleport._engine.capped_step import Line, out_of_room
from teleport._engine.caps import Caps
from teleport._engine.contract import LossFn, StepMonitor
from teleport._engine.event import Event
from teleport._engine.finiteness import all_finite, not_finite_along, not_finite_at
from teleport._engine.layer_reports import LayerReport
from teleport._engine.parameter_statistics import ParameterStatistics
from teleport._engine.progress import Callback
from teleport._engine.report import BatchReport, StepRecord, TeleportReport
from teleport._engine.run_event import run_event
from teleport._engine.statuses import Stopped
from teleport._engine.transaction import Snapshot, roll_back_if_violated
from teleport._processes.group import Group
from teleport._processes.ranks import Processes
from teleport._segments.plan import check_memory
from teleport._spaces.norms import inner, length_of, product_of

BACKTRACKS = 25
"""The largest number of halvings of a step."""

KKT_TOLERANCE = 1e-6
"""Tolerance of a stationary point: on the squared stationarity error (as published), slackness and violation."""


@dataclass(frozen=True)
class LevelSet:
    """Raise the gradient norm along the level set of the loss, for any model (Mishkin et al. 2024).

    For each batch: maximise ``1/2 log |g|^2`` subject to ``f <= f_0``, where ``f`` is the loss on the batch, ``f_0``
    its value at the start and ``g`` its gradient. A step solves the problem with objective and constraint linearised::

        w <- w + rho H g / |g|^2 - v g,    v = max(0, (rho g^T H g / |g|^2 + f - f_0) / |g|^2)

    with H the Hessian: one Hessian-vector product per step. A step is accepted if the merit function
    ``1/2 log |g|^2 - gamma [f - f_0]_+`` is larger than before. Otherwise rho is halved, at most 25 times. The next
    step starts with twice the accepted rho, at most ``lr``. The ascent ends at a point that meets the first-order
    conditions (Karush-Kuhn-Tucker, KKT).

    gamma is not from the paper: it is twice the largest multiplier ``g^T H g / |g|^4`` so far, with which the merit
    increases along the step, and at least ``1 / max(1, |f_0|)``. It never decreases, which bounds the violation:
    ``f - f_0 <= max(1, |f_0|) max(log |g| / |g_0|)``, the maximum over the steps. The guard bounds it further.

    All trainable parameters may move. The loss may decrease, and it changes within its bound, as only its linearisation
    is constrained. Use this method if the null space is empty (narrow networks, convolutions). Otherwise
    :class:`teleport.NullSpace` keeps the loss exactly.

    Args:
        lr: the longest step along ``H g / |g|^2``, in units of ``lr_unit``.
        lr_unit: ``"relative"`` for the norm of all trainable parameters; ``"absolute"`` for ``H g / |g|^2`` itself, as
            published: then ``lr`` is rho.
        steps: K, the largest number of steps per batch.
        cap: the largest gradient norm, ``None`` for none, as published; a step that would pass it is halved.
        relative_cap: a cap as a factor on the mean gradient norm before the event; see :class:`teleport.Teleporter`.
        guard: ``"transaction"`` halves steps that raise the batch's loss above ``f_0`` by more than
            ``tolerance * max(1, |f_0|)``, and undoes the steps on a batch if a value is infinite or NaN.
            ``"none"`` relies on the merit function alone.
        tolerance: of the guard, relative to ``max(1, |f_0|)``.
        memory: the budget of an event, in bytes or as text such as ``"2GB"``; see :class:`teleport.Teleporter`.

    Raises:
        ValueError: an argument outside its range.
    """

    lr: float = 0.1
    steps: int = 50
    cap: float | None = None
    relative_cap: float | None = 2.0
    guard: Literal["transaction", "none"] = "transaction"
    tolerance: float = 1e-3
    lr_unit: Literal["relative", "absolute"] = "relative"
    memory: int | str | None = None

    def __post_init__(self) -> None:
        check_memory(self.memory)
        check_steps(self.lr, self.steps, lr_unit=self.lr_unit)
        check_limits(self.cap, self.relative_cap, self.guard, self.tolerance)

    def __call__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        loss_fn: LossFn,
        *,
        generator: torch.Generator | None = None,
        callback: Callback | None = None,
        keep_modes: bool = False,
        process_group: Processes = None,
    ) -> TeleportReport:
        """Teleport ``model`` in place.

        Args:
            model: any module whose loss can be differentiated twice. Modes, buffers, ``requires_grad``, ``.grad`` and
                torch's global random state are restored. After an exception the parameters are restored as well.
            batches: what ``loss_fn`` takes, one level set per batch; B batches of n samples.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
            generator: not used, as no random numbers are drawn; all methods accept it.
            callback: called per batch and per step, see ``teleport.Callback``.
            keep_modes: see :class:`teleport.Teleporter`.
            process_group: see :class:`teleport.Teleporter`.

        Raises:
            ValueError: there are no batches or no trainable parameters, or the loss is not a scalar or depends on no
                trainable parameter.
            UnsupportedModel: torch cannot differentiate the loss twice (a ``ValueError`` too).
        """
        return run_event(
            "levelset",
            model,
            batches,
            loss_fn,
            self._work,
            callback,
            gradients=self.relative_cap is not None,
            keep_modes=keep_modes,
            process_group=process_group,
            memory=self.memory,
            divisible="whole",
            on_shards=True,
        )

    def _work(self, event: Event) -> tuple[list[BatchReport], list[LayerReport]]:
        statistics = ParameterStatistics(event.named, event.start, event.group)
        losses = [event.batch_loss(batch, event.trainable) for batch in event.batches]
        losses[0].check_writable()
        cap = Caps(self.cap, self.relative_cap, event).over(event.trainable)
        reports = []
        for number, loss in enumerate(losses):
            reports.append(self._teleport(loss, cap, event.monitor.on(number, self.steps)))
            if event.monitor.stopped:
                break
        if any(report.steps for report in reports):  # otherwise any change is of an evaluation
            event.moved |= set(event.trainable)
        return reports, statistics.close(event.moved)

    def _teleport(self, loss: BatchLoss, cap: float, monitor: StepMonitor) -> BatchReport:
        """At most K steps on the level set of one batch."""
        snapshot = Snapshot(loss.parameters, loss.known)
        ascent = _LevelSetAscent(self, loss, cap, monitor)
        ascent.run()
        start, end = ascent.trace[0], ascent.trace[-1]
        report = BatchReport(
            loss_before=start.loss,
            loss_after=end.loss,
            gradient_norm_before=start.gradient_norm,
            gradient_norm_after=end.gradient_norm,
            steps=end.step,
            stopped=ascent.stopped or Stopped.STEPS_DONE,
            accepted=not ascent.reason or end.step > 0,
            reason=ascent.reason,
            trace=ascent.trace,
        )
        if self.guard == "transaction":
            risen = start.loss if end.loss < start.loss else end.loss  # a lower loss is no violation
            roll_back_if_violated(report, self.tolerance, snapshot, (start.loss, risen), loss.group)
        return report


@dataclass(frozen=True)
class _Linearised:
    """Objective and constraint linearised at a point.

    Attributes:
        q: ``H g / |g|^2``, the gradient of the objective, one tensor per parameter.
        g: the gradient of the loss, one tensor per parameter.
        slope: ``<q, g>``.
        square: ``|g|^2``.
        excess: ``f - f_0``.
    """

    q: list[Tensor]
    g: list[Tensor]
    slope: float
    square: float
    excess: float

    @property
    def multiplier(self) -> float:
        """The constraint's multiplier by least squares."""
        return max(0.0, self.slope / self.square)

    def stationary(self, group: Group) -> bool:
        """Whether the first-order conditions hold: feasibility, complementary slackness and stationarity."""
        if self.excess > KKT_TOLERANCE or -self.excess * self.multiplier > KKT_TOLERANCE:
            return False
        gradient = [q - self.multiplier * g for q, g in zip(self.q, self.g, strict=True)]
        return group.totals([float(inner(gradient, gradient))])[0] <= KKT_TOLERANCE

    def step(self, rho: float) -> list[Tensor]:
        """``rho q - v g``, the solution of the linearised problem."""
        v = max(0.0, (rho * self.slope + self.excess) / self.square)
        return [rho * q - v * g for q, g in zip(self.q, self.g, strict=True)]


class _LevelSetAscent:
    """The ascent on one batch."""

    def __init__(self, method: LevelSet, loss: BatchLoss, cap: float, monitor: StepMonitor) -> None:
        self.method = method
        self.loss = loss
        self.cap = cap
        self.monitor = monitor
        self.rho = math.inf
        self.point = loss.point(method.steps > 0)
        self.level = float(self.point.loss)  # f_0
        self.room = method.tolerance * max(1.0, abs(self.level))
        self.gamma = 1 / max(1.0, abs(self.level))
        self.trace = [StepRecord(0, self.level, self.point.norm)]
        self.stopped: Stopped | None = None
        self.reason = ""  # names what is not finite

    def run(self) -> None:
        """Take steps until one of the reasons to stop applies."""
        if self.monitor(self.trace[0]):
            self.stopped = Stopped.CALLBACK
            return
        if reason := not_finite_at(self.loss, self.point, self.loss.parameters):
            self.stopped, self.reason = Stopped.NOT_FINITE, reason
            return
        for step in range(1, self.method.steps + 1):
            norm = self.trace[-1].gradient_norm
            if out_of_room(norm, self.cap, "cap"):
                self.stopped = Stopped.ABOVE_CAP if step == 1 else Stopped.CAP_REACHED
            elif norm == 0:
                self.stopped = Stopped.STATIONARY
            else:
                self._step(step)
                if not self.stopped and self.monitor(self.trace[-1]):
                    self.stopped = Stopped.CALLBACK
            if self.stopped:
                return
        self.stopped = Stopped.STEPS_DONE

    def _step(self, step: int) -> None:
        here = self._linearise()
        if self.loss.group.anywhere(not all_finite(here.q)):
            self.stopped, self.reason = Stopped.NOT_FINITE, not_finite_along(self.loss, self.loss.parameters)
            return
        if here.stationary(self.loss.group):
            self.stopped = Stopped.STATIONARY
            return
        self.gamma = max(self.gamma, 2 * here.multiplier)
        merit = self._merit(self.point)
        line = Line(self.loss.parameters, here.q, self.loss.known)
        longest = self._longest(here, line)
        self.rho = min(self.rho, longest)
        more = step < self.method.steps
        for attempt in range(BACKTRACKS + 1):
            line.directions = here.step(self.rho)
            line.move_to(1.0)
            reached = self.loss.point(more and attempt == 0)
            if self._allowed(reached) and self._merit(reached) > merit:
                break
            self.rho /= 2
        else:
            line.move_to(0.0)
            self.stopped = Stopped.NO_ASCENT
            return
        self.point = self.loss.point(True) if more and not reached.differentiable else reached
        self.trace.append(StepRecord(step, float(reached.loss), reached.norm))
        self.rho = 2 * self.rho

    def _linearise(self) -> _Linearised:
        g = [gradient.detach() for gradient in self.point.gradients]
        product = self.loss.ascent_direction(self.point, self.loss.parameters, keep=True)  # H g
        group = self.loss.group
        square = group.totals([product_of(g, g)])[0]
        q = [part / square for part in product]
        slope = group.totals([float(inner(q, g))])[0]
        return _Linearised(q, g, slope, square, float(self.point.loss) - self.level)

    def _longest(self, here: _Linearised, line: Line) -> float:
        """The largest rho: ``lr`` along ``H g / |g|^2``, or what moves the parameters by that share of their norm."""
        if self.method.lr_unit == "absolute":
            return self.method.lr
        norm, distance = self.loss.group.lengths(length_of(line.start), length_of(here.q))
        return self.method.lr * (norm or 1.0) / (distance or 1.0)

    def _merit(self, point: Point) -> float:
        norm = point.norm
        return (math.log(norm) if norm > 0 else -math.inf) - self.gamma * max(0.0, float(point.loss) - self.level)

    def _allowed(self, point: Point) -> bool:
        """Whether loss and norm are finite, the norm is at most the cap and the guard, if any, is not violated."""
        rise, norm = float(point.loss) - self.level, point.norm
        if not (math.isfinite(rise) and math.isfinite(norm)) or norm > self.cap:
            return False
        return self.method.guard == "none" or rise <= self.room
