"""Positive rescaling of hidden channels: the cheapest symmetry, exact on all data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport._arguments import check_choice, check_limits, check_positive, check_steps
from teleport._engine.ascent import Point
from teleport._engine.caps import Caps
from teleport._engine.contract import Callback, LossFn
from teleport._engine.event import Event, run_event
from teleport._engine.report import BatchReport, FactorReport, LayerReport, StepRecord
from teleport._engine.statuses import Stopped
from teleport._engine.transaction import Snapshot, violation
from teleport._rescaling.factor_variables import find_factor_variables
from teleport._rescaling.gradient_norm import SquaredGradientNormOfFactors, Trajectory


@dataclass(frozen=True)
class Rescaling:
    """Multiply hidden channels by positive factors tau, and what reads them by their inverse.

    Channel i of a linear layer, a convolution or a normalisation's affine part has its weights and bias multiplied by
    tau_i, the columns of every layer that reads it divided by tau_i. Through ReLU, LeakyReLU, pooling, flattening and
    dropout the model computes the same function, on any data. Channels that are added carry one factor. Queries and
    keys are each other's inverse; values go into the output projection. Channels that enter anything else (tanh, a
    normalisation), or that a weight leads from and to, keep tau = 1, and the report says why.

    The gradient norm is known in closed form for every tau (``_rescaling/gradient_norm.py``), so that a batch costs one
    gradient, and another one to measure what was reached. It has no upper bound, hence ``bound`` and ``cap``. A larger
    norm by rescaling alone is a baseline: the function did not change, and neither did what it can learn.

    Args:
        mode: ``"ascent"`` raises the gradient norm of each batch in turn; ``"balance"`` goes to the one minimum of the
            mean squared norm over all batches, whose root is what the batches' ``trace`` then has.
        bound: on ``|log tau|``, over the whole event.
        lr: the largest change of a log tau in one step of the ascent.
        steps: at most so many steps of the ascent a batch, or sweeps of the balancing.
        step: ``"cap"`` shortens a step so that the gradient norm lands on the cap; ``"fixed"`` takes it whole and
            stops after it.
        cap: the largest gradient norm of the ascent, ``None`` for none.
        relative_cap: a cap as a factor on the mean gradient norm over the event's batches before it. With both, the
            smaller holds.
        guard: ``"transaction"`` puts factors back that changed a loss by more than ``tolerance * max(1, |loss|)``, by
            rounding or by a dependence that an evaluation does not show; ``"none"`` keeps them.
        tolerance: of the guard, relative.

    Raises:
        ValueError: an argument outside its range.
    """

    mode: Literal["ascent", "balance"] = "ascent"
    bound: float = 2.0
    lr: float = 0.1
    steps: int = 100
    step: Literal["cap", "fixed"] = "cap"
    cap: float | None = None
    relative_cap: float | None = None
    guard: Literal["transaction", "none"] = "transaction"
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, ("ascent", "balance"))
        check_positive(bound=self.bound)
        check_steps(self.lr, self.steps, self.step)
        check_limits(self.cap, self.relative_cap, self.guard, self.tolerance)

    def __call__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        loss_fn: LossFn,
        *,
        generator: torch.Generator | None = None,
        callback: Callback | None = None,
    ) -> FactorReport:
        """Teleport ``model`` in place; ``report.group`` has the factors of each parameter that moved.

        Args:
            model: any module. Modes, buffers, ``requires_grad``, ``.grad`` and torch's global random state come back as
                they were. After an exception the parameters do, too.
            batches: what ``loss_fn`` takes.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
            generator: accepted as of every method, and not used: nothing is drawn.
            callback: called per batch and per step, see ``teleport.Callback``.

        Raises:
            ValueError: no batches, a loss that is no scalar or depends on no trainable parameter, or no such
                parameter.
        """
        acted: dict[nn.Parameter, Tensor] = {}

        def work(event: Event) -> tuple[list[BatchReport], list[LayerReport]]:
            return _RescalingEvent(self, event, acted).run()

        report: FactorReport = run_event("rescaling", model, batches, loss_fn, work, callback, FactorReport)
        report.group = acted
        return report


class _RescalingEvent:
    """The rescalings of one event, all from where the parameters were before it."""

    def __init__(self, method: Rescaling, event: Event, acted: dict[nn.Parameter, Tensor]) -> None:
        self.method = method
        self.event = event
        self.acted = acted
        self.channels = find_factor_variables(event.evaluate, event.batches, event.named)
        parameters = [scaled.parameter for scaled in self.channels.scaled.values()]
        event.moved |= set(parameters)
        self.snapshot = Snapshot(parameters)
        self.start = {parameter: parameter.detach().clone() for parameter in parameters}
        self.x = torch.zeros(self.channels.variables, dtype=torch.float64, device=self.channels.sign.device)

    def run(self) -> tuple[list[BatchReport], list[LayerReport]]:
        """Ascend on each batch in turn, or balance all together."""
        method, event = self.method, self.event
        objectives = [event.objective(batch, event.trainable) for batch in event.batches]
        cap = Caps(method.cap, method.relative_cap, objectives).over(event.trainable)
        together = [event.batches] if method.mode == "balance" else [[batch] for batch in event.batches]
        event.monitor.batches = len(together)
        reports: list[BatchReport] = []
        for number, batches in enumerate(together):
            reports += self._teleport(number, batches, cap)
            if event.monitor.stopped:
                break
        self._keep_group()
        return reports, self._layers()

    def _teleport(self, number: int, batches: list[Any], cap: float) -> list[BatchReport]:
        """Rescale for the mean squared norm over ``batches``, undone where the guard says so."""
        before, x = [self._point(batch) for batch in batches], self.x
        way = self._way(number, before, cap)
        self._apply(way.x)
        after = [self._point(batch) for batch in batches] if way.steps else before
        reports = [
            BatchReport(
                loss_before=float(old.loss),
                loss_after=float(new.loss),
                gradient_norm_before=old.norm,
                gradient_norm_after=new.norm,
                steps=way.steps,
                stopped=way.stopped,
                trace=[StepRecord(n, float(old.loss), square**0.5) for n, square in enumerate(way.squared_norms)],
            )
            for old, new in zip(before, after, strict=True)
        ]
        if self.method.guard == "transaction":
            for report in reports:
                report.reason = self._broken(report)
            if broken := next((report.reason for report in reports if report.reason), ""):
                self._apply(x)
                for report in reports:  # they moved together
                    report.accepted, report.stopped, report.reason = False, Stopped.ROLLED_BACK, report.reason or broken
        return reports

    def _point(self, batch: Any) -> Point:
        return self.event.objective(batch, self.event.trainable).point(differentiable=False)

    def _way(self, number: int, points: list[Point], cap: float) -> Trajectory:
        """Where the variables go, by the closed form of the mean squared norm."""
        method = self.method
        squares = {
            parameter: torch.stack([_square(gradient) for gradient in gradients]).mean(0)
            for parameter, *gradients in zip(self.event.trainable, *(point.gradients for point in points), strict=True)
        }
        objective = SquaredGradientNormOfFactors(self.channels, squares, self.x)
        loss = sum(float(point.loss) for point in points) / len(points)  # which no step changes

        def monitor(step: int, squared_norm: float) -> bool:
            record = StepRecord(step, loss, math.sqrt(squared_norm))
            return self.event.monitor.tell(number, method.steps, record)

        if self.event.monitor.active and monitor(0, objective.at(self.x)):
            return Trajectory(self.x, [objective.at(self.x)], Stopped.CALLBACK)
        if not len(self.x):
            return Trajectory(self.x, [objective.at(self.x)], Stopped.NOTHING_MOVES)
        if not all(bool(square.isfinite().all()) for square in squares.values()):
            return Trajectory(self.x, [objective.at(self.x)], Stopped.NOT_FINITE)
        if method.mode == "balance":
            return objective.balance(self.x, sweeps=method.steps, bound=method.bound, monitor=monitor)
        limits = {"cap": cap, "bound": method.bound}
        return objective.ascend(self.x, lr=method.lr, steps=method.steps, rule=method.step, monitor=monitor, **limits)

    @torch.no_grad()
    def _apply(self, x: Tensor) -> None:
        """Set the parameters to what the variables ``x`` make of them; from the start, so that no rounding adds up."""
        if torch.equal(x, self.x):
            return
        self.x, tau = x, self.channels.log_tau(x).exp()
        for scaled in self.channels.scaled.values():
            start = self.start[scaled.parameter]
            scaled.parameter.copy_(start * scaled.factors(tau).to(start.dtype))

    def _broken(self, report: BatchReport) -> str:
        """Why a batch's promise does not hold, empty where it does."""
        norm, tolerance = report.gradient_norm_after, self.method.tolerance
        return violation(report.loss_before, report.loss_after, norm, tolerance, self.snapshot)

    def _keep_group(self) -> None:
        """Tell which factors acted."""
        tau = self.channels.log_tau(self.x).exp()
        for scaled in self.channels.scaled.values():
            factors = scaled.factors(tau)
            if bool((factors != 1).any()):
                self.acted[scaled.parameter] = factors

    def _layers(self) -> list[LayerReport]:
        """A report a group of channels: the root mean square of ``tau - 1``, or why the channels stayed."""
        channels, log_tau = self.channels, self.channels.log_tau(self.x)
        reports = []
        for name, units in channels.groups.items():
            change = float(torch.expm1(log_tau[units]).square().mean().sqrt())
            reason = "" if change else channels.reasons.get(name, "no step was taken or kept")
            reports.append(LayerReport(name, channels.kinds[name], len(units), relative_change=change, reason=reason))
        others = [(name, reason) for name, reason in channels.reasons.items() if name not in channels.groups]
        return reports + [LayerReport(name, "parameter", 0, reason=reason) for name, reason in others]


def _square(gradient: Tensor) -> Tensor:
    """``|g|^2`` per element, in double precision; zero if a sparse gradient has no entry there."""
    gradient = gradient.to_dense() if gradient.is_sparse else gradient
    return gradient.abs().double().square() if gradient.is_complex() else gradient.double().square()
