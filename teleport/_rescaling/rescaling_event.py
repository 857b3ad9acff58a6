"""The event of a rescaling: finds the factors, ascends or balances in closed form, checks and reports."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal

import torch
from torch import Tensor, nn

from teleport._engine.batch_loss import Point
from teleport._engine.caps import Caps
from teleport._engine.event import Event
from teleport._engine.finiteness import not_finite_at_any
from teleport._engine.layer_reports import LayerReport
from teleport._engine.report import BatchReport, StepRecord
from teleport._engine.statuses import Stopped
from teleport._engine.transaction import Snapshot, not_accepted, violation
from teleport._processes.shards import Shards
from teleport._quiver.channel_changes import channel_changes, zero_parameters
from teleport._quiver.rows import FactorsOfShards, in_rows
from teleport._rescaling.ascent import SquaredGradientNorm, Trajectory, X
from teleport._rescaling.factor_variables import find_factor_variables
from teleport._rescaling.gradient_norm import SquaredGradientNormOfFactors
from teleport._tracing.reasons import ZERO_WEIGHTS


@dataclass(frozen=True)
class Settings:
    """The arguments of ``teleport.Rescaling``, which describes them."""

    mode: Literal["ascent", "balance"] = "ascent"
    bound: float = 2.0
    lr: float = 0.1
    steps: int = 100
    step: Literal["cap", "fixed"] = "cap"
    cap: float | None = None
    relative_cap: float | None = 2.0
    guard: Literal["transaction", "none"] = "transaction"
    tolerance: float = 1e-3
    group: Literal["scaling", "general", "all"] = "scaling"


class MoveEvent(ABC, Generic[X]):
    """The moves of one event along a known gradient norm, each applied to the parameters before the event.

    Attributes:
        method: the arguments.
        event: of the call.
        x: where the parameters are now.
        snapshot: of the parameters that may move.
        start: their values before the event.
    """

    method: Settings
    event: Event
    x: X
    snapshot: Snapshot
    start: dict[nn.Parameter, Tensor]

    @property
    @abstractmethod
    def empty(self) -> bool:
        """Whether nothing can move."""

    @abstractmethod
    def norm(self, points: Sequence[Point]) -> SquaredGradientNorm[X]:
        """The mean squared gradient norm of points at the current parameters."""

    @abstractmethod
    def apply(self, x: X) -> None:
        """Move the parameters to ``x``."""

    @abstractmethod
    def layers(self) -> list[LayerReport]:
        """The report of each layer."""

    def run(self) -> tuple[list[BatchReport], list[LayerReport]]:
        """Ascend on each batch in turn, or balance all together."""
        method, event = self.method, self.event
        cap = Caps(method.cap, method.relative_cap, event).over(event.trainable)
        together = [event.batches] if method.mode == "balance" else [[batch] for batch in event.batches]
        event.monitor.batches = len(together)
        reports: list[BatchReport] = []
        for number, batches in enumerate(together):
            reports += self._teleport(number, batches, cap)
            if event.monitor.stopped:
                break
        return reports, self.layers()

    def _teleport(self, number: int, batches: list[Any], cap: float) -> list[BatchReport]:
        """Rescale for the mean squared norm over ``batches``; undo it if the guard is violated."""
        losses, x = [self.event.batch_loss(batch, self.event.trainable) for batch in batches], self.x
        before = [loss.point(differentiable=False) for loss in losses]
        reasons = not_finite_at_any(losses, before, self.start)
        trajectory = self._trajectory(number, before, cap, not any(reasons))
        self.apply(trajectory.x)
        after = [loss.point(differentiable=False) for loss in losses] if trajectory.steps else before
        reports = [
            BatchReport(
                loss_before=float(old.loss),
                loss_after=float(new.loss),
                gradient_norm_before=old.norm,
                gradient_norm_after=new.norm,
                steps=trajectory.steps,
                stopped=trajectory.stopped,
                trace=[
                    StepRecord(n, float(old.loss), square**0.5) for n, square in enumerate(trajectory.squared_norms)
                ],
            )
            for old, new in zip(before, after, strict=True)
        ]
        if trajectory.stopped == Stopped.NOT_FINITE:
            not_accepted(reports, reasons, Stopped.NOT_FINITE)
        elif self.method.guard == "transaction" and not_accepted(reports, map(self._violation, reports)):
            self.apply(x)
        return reports

    def _trajectory(self, number: int, points: list[Point], cap: float, finite: bool) -> Trajectory[X]:
        """Ascend or balance the mean squared norm over the batches, in closed form, if all of them are ``finite``."""
        method = self.method
        squared_norm = self.norm(points)
        loss = sum(float(point.loss) for point in points) / len(points)  # no step changes it

        def monitor(step: int, squared: float) -> bool:
            record = StepRecord(step, loss, math.sqrt(squared))
            return self.event.monitor.tell(number, method.steps, record)

        if self.event.monitor.active and monitor(0, squared_norm.at(self.x)):
            return Trajectory(self.x, [squared_norm.at(self.x)], Stopped.CALLBACK)
        if not finite:
            return Trajectory(self.x, [squared_norm.at(self.x)], Stopped.NOT_FINITE)
        if self.empty:
            return Trajectory(self.x, [squared_norm.at(self.x)], Stopped.NOTHING_MOVES)
        if method.mode == "balance":
            return squared_norm.balance(self.x, sweeps=method.steps, bound=method.bound, monitor=monitor)
        limits = {"cap": cap, "bound": method.bound}
        return squared_norm.ascend(
            self.x, lr=method.lr, steps=method.steps, rule=method.step, monitor=monitor, **limits
        )

    def _violation(self, report: BatchReport) -> str:
        """The violation of the guard on a batch, empty if there is none."""
        norm, tolerance = report.gradient_norm_after, self.method.tolerance
        found = violation(report.loss_before, report.loss_after, norm, tolerance, self.snapshot)
        return self.event.group.common(found)


class RescalingEvent(MoveEvent[Tensor]):
    """The rescalings of one event.

    Args:
        method: the arguments.
        event: of the call.
        group: is filled with the factors of each parameter that was scaled.
    """

    def __init__(self, method: Settings, event: Event, group: dict[nn.Parameter, Tensor]) -> None:
        self.method = method
        self.event = event
        self.group = group
        device = next(iter(event.named.values())).device
        found = find_factor_variables(event.evaluate_once, event.batches, event.traced, device)
        event.group.agree_on("classes_of_channels", [found.variable, found.sign])
        self.whole = found.scaled
        self.factor_variables = dataclasses.replace(found, scaled=in_rows(event.group, found.scaled))
        parameters = [scaled.parameter for scaled in self.factor_variables.scaled.values()]
        event.moved |= set(parameters)
        self.snapshot = Snapshot(parameters)
        self.start = {parameter: parameter.detach().clone() for parameter in parameters}
        self.x = torch.zeros(self.factor_variables.count, dtype=torch.float64, device=self.factor_variables.sign.device)

    @property
    def empty(self) -> bool:
        """Whether there is no free factor."""
        return not len(self.x)

    def norm(self, points: Sequence[Point]) -> SquaredGradientNormOfFactors:
        """The mean squared gradient norm of points at the current parameters."""
        squares = {
            parameter: torch.stack([_square(gradient) for gradient in gradients]).mean(0)
            for parameter, *gradients in zip(self.event.trainable, *(point.gradients for point in points), strict=True)
        }
        return SquaredGradientNormOfFactors(self.factor_variables, squares, self.x, self.event.group)

    @torch.no_grad()
    def apply(self, x: Tensor) -> None:
        """Scale the parameters by the factors at ``x``, from their values before the event: no rounding accumulates."""
        if torch.equal(x, self.x):
            return
        self.x, tau = x, self.factor_variables.log_tau(x).exp()
        for scaled in self.factor_variables.scaled.values():
            start = self.start[scaled.parameter]
            scaled.parameter.copy_(start * scaled.factors(tau).to(start.dtype))

    def _keep_group(self) -> None:
        """Store the factors of each parameter that was scaled, for the report."""
        tau, group = self.factor_variables.log_tau(self.x).exp(), self.event.group
        moved = {name: each for name, each in self.whole.items() if bool((each.factors(tau) != 1).any())}
        if isinstance(group, Shards):
            self.group.update(FactorsOfShards(group, moved, tau))
        else:
            self.group.update({each.parameter: each.factors(tau) for each in moved.values()})

    def layers(self) -> list[LayerReport]:
        """One report per group of channels: the root mean square of ``tau - 1``, or the reason why it is 0."""
        self._keep_group()
        variables, log_tau = self.factor_variables, self.factor_variables.log_tau(self.x)
        empty = zero_parameters(variables.scaled, self.event.group)
        changes, zero = channel_changes(torch.expm1(log_tau), variables.groups, self.whole, empty)
        reports = []
        for name, classes in variables.groups.items():
            change, still = changes[name], ZERO_WEIGHTS if name in zero else "no step was taken or kept"
            reason = "" if change else variables.reasons.get(name, still)
            reports.append(
                LayerReport(name, variables.kinds[name], len(classes), relative_change=change, reason=reason)
            )
        others = {name: reason for name, reason in variables.reasons.items() if name not in variables.groups}
        others |= {name: "" for name in changes if name not in variables.groups}
        return reports + [
            LayerReport(name, "parameter", 0, changes.get(name, 0.0), reason) for name, reason in others.items()
        ]


def _square(gradient: Tensor) -> Tensor:
    """``|g|^2`` per element, in double precision; zero if a sparse gradient has no entry there."""
    gradient = gradient.to_dense() if gradient.is_sparse else gradient
    return gradient.abs().double().square() if gradient.is_complex() else gradient.double().square()
