"""Level-set teleportation by linearised steps (Mishkin et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport._arguments import check_limits, check_steps
from teleport._engine.ascent import BatchLoss, Line, Point, out_of_room
from teleport._engine.caps import Caps
from teleport._engine.contract import Callback, LossFn, StepMonitor
from teleport._engine.event import Event, run_event
from teleport._engine.parameter_statistics import ParameterStatistics
from teleport._engine.report import BatchReport, LayerReport, StepRecord, TeleportReport
from teleport._engine.statuses import Stopped
from teleport._engine.transaction import Snapshot, roll_back_if_violated
from teleport._spaces.norms import inner

BACKTRACKS = 25
"""How often a step may be halved."""

TOLERATED = 1e-6
"""The KKT residual (squared, as published), slackness and violation at which a point counts as stationary."""


@dataclass(frozen=True)
class LevelSet:
    """Raise the gradient norm along the level set of the loss, whatever the model.

    For each batch: maximise ``1/2 log |g|^2`` subject to ``f <= f_0``, where ``f`` is the loss on the batch, ``f_0``
    its value at the start and ``g`` its gradient. A step solves the problem with objective and constraint linearised::

        w <- w + rho H g / |g|^2 - v g,    v = max(0, (rho g^T H g / |g|^2 + f - f_0) / |g|^2)

    with H the Hessian: one Hessian-vector product a step. It is kept once the merit function
    ``1/2 log |g|^2 - gamma [f - f_0]_+`` is larger than before, else tried again at half of rho, 25 times at most; the
    next step starts at twice the rho that was kept, at most ``lr``. It ends at a point that meets the first-order
    conditions (KKT).

    gamma is our choice: twice the largest multiplier ``g^T H g / |g|^4`` met so far, at which the merit rises along the
    step, and at least ``1 / max(1, |f_0|)``. It never falls, which bounds the violation:
    ``f - f_0 <= max(1, |f_0|) max(log |g| / |g_0|)``, the maximum over the steps. The guard bounds it further.

    Every trainable parameter may move. The loss may fall, and it drifts within its bound, as only its linear part is
    held. Use it where the null space is empty (narrow networks, convolutions); where it is not,
    :class:`teleport.NullSpace` keeps the loss exactly.

    Args:
        lr: rho, the longest step along ``H g / |g|^2``.
        steps: K, steps a batch.
        cap: the largest gradient norm, ``None`` for none, as published; a step beyond it is halved.
        relative_cap: a cap as a factor on the mean gradient norm over the event's batches before it. With both, the
            smaller holds.
        guard: ``"transaction"`` halves steps that raise the batch's loss above ``f_0`` by more than
            ``tolerance * max(1, |f_0|)``, and puts back what became non-finite; ``"none"`` leaves it to the merit.
        tolerance: of the guard, relative.

    Raises:
        ValueError: an argument outside its range.
    """

    lr: float = 0.1
    steps: int = 50
    cap: float | None = None
    relative_cap: float | None = None
    guard: Literal["transaction", "none"] = "transaction"
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        check_steps(self.lr, self.steps)
        check_limits(self.cap, self.relative_cap, self.guard, self.tolerance)

    def __call__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        loss_fn: LossFn,
        *,
        generator: torch.Generator | None = None,
        callback: Callback | None = None,
    ) -> TeleportReport:
        """Teleport ``model`` in place.

        Args:
            model: any module whose loss can be differentiated twice. What comes back as it was is what
                :class:`teleport.NullSpace` says.
            batches: what ``loss_fn`` takes, one level set each; B batches of n samples.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
            generator: accepted as of every method, and not used: nothing is drawn.
            callback: called per batch and per step, see ``teleport.Callback``.

        Raises:
            ValueError: no batches, a loss that is no scalar or depends on no trainable parameter, or no such
                parameter; :class:`teleport.UnsupportedModel`, one, where torch cannot differentiate the loss twice.
        """
        return run_event("levelset", model, batches, loss_fn, self._work, callback)

    def _work(self, event: Event) -> tuple[list[BatchReport], list[LayerReport]]:
        event.moved |= set(event.trainable)
        statistics = ParameterStatistics(event.named)
        losses = [event.objective(batch, event.trainable) for batch in event.batches]
        cap = Caps(self.cap, self.relative_cap, losses).over(event.trainable)
        reports = []
        for number, loss in enumerate(losses):
            reports.append(self._teleport(loss, cap, event.monitor.on(number, self.steps)))
            if event.monitor.stopped:
                break
        return reports, statistics.close()

    def _teleport(self, loss: BatchLoss, cap: float, monitor: StepMonitor) -> BatchReport:
        """At most K steps on the level set of one batch."""
        snapshot = Snapshot(loss.parameters)
        walk = _Walk(self, loss, cap, monitor)
        walk.run()
        start, end = walk.trace[0], walk.trace[-1]
        report = BatchReport(
            loss_before=start.loss,
            loss_after=end.loss,
            gradient_norm_before=start.gradient_norm,
            gradient_norm_after=end.gradient_norm,
            steps=end.step,
            stopped=walk.stopped or Stopped.STEPS_DONE,
            trace=walk.trace,
        )
        if self.guard == "transaction":
            risen = start.loss if end.loss < start.loss else end.loss  # a loss that fell keeps the promise
            roll_back_if_violated(report, self.tolerance, snapshot, (start.loss, risen))
        return report


@dataclass(frozen=True)
class _Linearised:
    """Objective and constraint at a point: ``q = H g / |g|^2``, ``g``, ``<q, g>``, ``|g|^2`` and ``f - f_0``."""

    q: list[Tensor]
    g: list[Tensor]
    slope: float
    square: float
    excess: float

    @property
    def multiplier(self) -> float:
        """The constraint's multiplier by least squares."""
        return max(0.0, self.slope / self.square)

    @property
    def stationary(self) -> bool:
        """Whether the first-order conditions hold: feasible, complementary, and no gradient left over."""
        if self.excess > TOLERATED or -self.excess * self.multiplier > TOLERATED:
            return False
        residual = [q - self.multiplier * g for q, g in zip(self.q, self.g, strict=True)]
        return float(inner(residual, residual)) <= TOLERATED

    def step(self, rho: float) -> list[Tensor]:
        """``rho q - v g``, the solution of the linearised problem."""
        v = max(0.0, (rho * self.slope + self.excess) / self.square)
        return [rho * q - v * g for q, g in zip(self.q, self.g, strict=True)]


class _Walk:
    """The steps on one batch."""

    def __init__(self, method: LevelSet, loss: BatchLoss, cap: float, monitor: StepMonitor) -> None:
        self.method = method
        self.loss = loss
        self.cap = cap
        self.monitor = monitor
        self.rho = method.lr
        self.point = loss.point(method.steps > 0)
        self.level = float(self.point.loss)  # f_0
        self.room = method.tolerance * max(1.0, abs(self.level))
        self.gamma = 1 / max(1.0, abs(self.level))
        self.trace = [StepRecord(0, self.level, self.point.norm)]
        self.stopped: Stopped | None = None

    def run(self) -> None:
        """Step until one of the reasons to stop holds."""
        if self.monitor(self.trace[0]):
            self.stopped = Stopped.CALLBACK
            return
        for step in range(1, self.method.steps + 1):
            norm = self.trace[-1].gradient_norm
            if out_of_room(norm, self.cap, "cap"):
                self.stopped = Stopped.ABOVE_CAP if step == 1 else Stopped.CAP_REACHED
            elif not (math.isfinite(norm) and math.isfinite(self.level)):
                self.stopped = Stopped.NOT_FINITE
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
        if here.stationary:
            self.stopped = Stopped.STATIONARY
            return
        self.gamma = max(self.gamma, 2 * here.multiplier)
        merit = self._merit(self.point)
        line = Line(self.loss.parameters, here.q)
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
        self.rho = min(self.method.lr, 2 * self.rho)

    def _linearise(self) -> _Linearised:
        g = [gradient.detach() for gradient in self.point.gradients]
        product = self.loss.ascent_direction(self.point, self.loss.parameters)  # H g
        square = float(inner(g, g))
        q = [part / square for part in product]
        return _Linearised(q, g, float(inner(q, g)), square, float(self.point.loss) - self.level)

    def _merit(self, point: Point) -> float:
        norm = point.norm
        return (math.log(norm) if norm > 0 else -math.inf) - self.gamma * max(0.0, float(point.loss) - self.level)

    def _allowed(self, point: Point) -> bool:
        """Finite, at most at the cap and, where it is guarded, within the tolerance."""
        rise, norm = float(point.loss) - self.level, point.norm
        if not (math.isfinite(rise) and math.isfinite(norm)) or norm > self.cap:
            return False
        return self.method.guard == "none" or rise <= self.room
