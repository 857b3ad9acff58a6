"""Positive rescaling of hidden channels (Armenta et al. 2023): a symmetry of the network function on all data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport._arguments import check_call, check_choice, check_limits, check_positive, check_steps
from teleport._engine.batch_loss import Point
from teleport._engine.caps import Caps
from teleport._engine.contract import LossFn
from teleport._engine.event import Event, run_event
from teleport._engine.finiteness import not_finite_at_any
from teleport._engine.progress import Callback
from teleport._engine.report import BatchReport, FactorReport, LayerReport, StepRecord
from teleport._engine.sharded import with_whole_parameters
from teleport._engine.statuses import Stopped
from teleport._engine.transaction import Snapshot, not_accepted, violation
from teleport._processes.ranks import Processes, group_of
from teleport._quiver.channel_changes import channel_changes
from teleport._rescaling.factor_variables import find_factor_variables
from teleport._rescaling.gradient_norm import SquaredGradientNormOfFactors, Trajectory
from teleport._tracing.reasons import ZERO_WEIGHTS


@dataclass(frozen=True)
class Rescaling:
    """Multiply hidden channels by positive factors tau, and divide the weights that read them by the same factors.

    The weights and the bias of output channel i of a linear layer, a convolution or the affine part of a normalisation
    are multiplied by tau_i; the columns of every layer that reads channel i are divided by tau_i. ReLU, LeakyReLU,
    pooling, flattening and dropout are positively homogeneous, so the model computes the same function on all data.
    Channels that are added have one common factor. Keys have the inverse factors of their queries; the factors of
    values are divided out in the output projection. Channels that enter any other function (tanh, a normalisation), and
    channels that are both inputs and outputs of one weight, have tau = 1; the report gives the reason.

    The gradient norm is known in closed form for every tau (Armenta et al. 2023, Theorem 5.1). A batch costs one
    gradient, and a second one to measure the result. The norm has no upper bound, hence ``bound`` and ``cap``.
    Rescaling is a baseline: it raises the gradient norm without any change of the function.

    Args:
        mode: ``"ascent"`` raises the gradient norm of each batch in turn. ``"balance"`` moves to the minimum of the
            mean squared norm over all batches; the ``trace`` of each batch then has the root of this mean.
        bound: on ``|log tau|``, over the whole event.
        lr: the largest change of a ``log tau`` in one step of the ascent.
        steps: the largest number of ascent steps per batch, or of sweeps of the balancing.
        step: ``"cap"`` shortens a step that would pass the cap, so that the gradient norm ends within 2 % below it;
            ``"fixed"`` takes the whole step and stops after it.
        cap: the largest gradient norm of the ascent, ``None`` for none.
        relative_cap: a cap as a factor on the mean gradient norm before the event; see :class:`teleport.Teleporter`.
        guard: ``"transaction"`` undoes factors that changed a loss by more than ``tolerance * max(1, |loss|)``, by
            rounding or by a dependence that tracing cannot see; ``"none"`` keeps them.
        tolerance: of the guard, relative to ``max(1, |loss|)``.

    Raises:
        ValueError: an argument outside its range.
    """

    mode: Literal["ascent", "balance"] = "ascent"
    bound: float = 2.0
    lr: float = 0.1
    steps: int = 100
    step: Literal["cap", "fixed"] = "cap"
    cap: float | None = None
    relative_cap: float | None = 2.0
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
        keep_modes: bool = False,
        process_group: Processes = None,
    ) -> FactorReport:
        """Teleport ``model`` in place; ``report.group`` has the factors of each parameter that was scaled.

        Args:
            model: any module. Modes, buffers, ``requires_grad``, ``.grad`` and torch's global random state are
                restored. After an exception the parameters are restored as well.
            batches: what ``loss_fn`` takes.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
            generator: not used, as no random numbers are drawn; all methods accept it.
            callback: called per batch and per step, see ``teleport.Callback``.
            keep_modes: see :class:`teleport.Teleporter`.
            process_group: see :class:`teleport.Teleporter`.

        Raises:
            ValueError: there are no batches or no trainable parameters, or the loss is not a scalar or depends on no
                trainable parameter.
        """
        group: dict[nn.Parameter, Tensor] = {}

        def work(event: Event) -> tuple[list[BatchReport], list[LayerReport]]:
            return _RescalingEvent(self, event, group).run()

        def moved() -> FactorReport:
            report: FactorReport = run_event(
                "rescaling",
                model,
                batches,
                loss_fn,
                work,
                callback,
                FactorReport,
                gradients=relative,
                keep_modes=keep_modes,
                process_group=processes,
            )
            report.group = group
            return report

        check_call(model, batches, loss_fn, callback, keep_modes)
        relative, processes = self.relative_cap is not None, group_of(process_group, model)
        return with_whole_parameters(processes, model, moved)


class _RescalingEvent:
    """The rescalings of one event, each applied to the parameters before the event."""

    def __init__(self, method: Rescaling, event: Event, group: dict[nn.Parameter, Tensor]) -> None:
        self.method = method
        self.event = event
        self.group = group
        self.factor_variables = find_factor_variables(event.evaluate, event.batches, event.named)
        event.group.agree_on("classes_of_channels", [self.factor_variables.variable, self.factor_variables.sign])
        parameters = [scaled.parameter for scaled in self.factor_variables.scaled.values()]
        event.moved |= set(parameters)
        self.snapshot = Snapshot(parameters)
        self.start = {parameter: parameter.detach().clone() for parameter in parameters}
        self.x = torch.zeros(self.factor_variables.count, dtype=torch.float64, device=self.factor_variables.sign.device)

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
        self._keep_group()
        return reports, self._layers()

    def _teleport(self, number: int, batches: list[Any], cap: float) -> list[BatchReport]:
        """Rescale for the mean squared norm over ``batches``; undo it if the guard is violated."""
        losses, x = [self.event.batch_loss(batch, self.event.trainable) for batch in batches], self.x
        before = [loss.point(differentiable=False) for loss in losses]
        reasons = not_finite_at_any(losses, before, self.start)
        trajectory = self._trajectory(number, before, cap, not any(reasons))
        self._apply(trajectory.x)
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
            self._apply(x)
        return reports

    def _trajectory(self, number: int, points: list[Point], cap: float, finite: bool) -> Trajectory:
        """Ascend or balance the mean squared norm over the batches, in closed form, if all of them are ``finite``."""
        method = self.method
        squares = {
            parameter: torch.stack([_square(gradient) for gradient in gradients]).mean(0)
            for parameter, *gradients in zip(self.event.trainable, *(point.gradients for point in points), strict=True)
        }
        squared_norm = SquaredGradientNormOfFactors(self.factor_variables, squares, self.x)
        loss = sum(float(point.loss) for point in points) / len(points)  # no step changes it

        def monitor(step: int, squared: float) -> bool:
            record = StepRecord(step, loss, math.sqrt(squared))
            return self.event.monitor.tell(number, method.steps, record)

        if self.event.monitor.active and monitor(0, squared_norm.at(self.x)):
            return Trajectory(self.x, [squared_norm.at(self.x)], Stopped.CALLBACK)
        if not finite:
            return Trajectory(self.x, [squared_norm.at(self.x)], Stopped.NOT_FINITE)
        if not len(self.x):
            return Trajectory(self.x, [squared_norm.at(self.x)], Stopped.NOTHING_MOVES)
        if method.mode == "balance":
            return squared_norm.balance(self.x, sweeps=method.steps, bound=method.bound, monitor=monitor)
        limits = {"cap": cap, "bound": method.bound}
        return squared_norm.ascend(
            self.x, lr=method.lr, steps=method.steps, rule=method.step, monitor=monitor, **limits
        )

    @torch.no_grad()
    def _apply(self, x: Tensor) -> None:
        """Scale the parameters by the factors at ``x``, from their values before the event: no rounding accumulates."""
        if torch.equal(x, self.x):
            return
        self.x, tau = x, self.factor_variables.log_tau(x).exp()
        for scaled in self.factor_variables.scaled.values():
            start = self.start[scaled.parameter]
            scaled.parameter.copy_(start * scaled.factors(tau).to(start.dtype))

    def _violation(self, report: BatchReport) -> str:
        """The violation of the guard on a batch, empty if there is none."""
        norm, tolerance = report.gradient_norm_after, self.method.tolerance
        return violation(report.loss_before, report.loss_after, norm, tolerance, self.snapshot)

    def _keep_group(self) -> None:
        """Store the factors of each parameter that was scaled, for the report."""
        tau = self.factor_variables.log_tau(self.x).exp()
        for scaled in self.factor_variables.scaled.values():
            factors = scaled.factors(tau)
            if bool((factors != 1).any()):
                self.group[scaled.parameter] = factors

    def _layers(self) -> list[LayerReport]:
        """One report per group of channels: the root mean square of ``tau - 1``, or the reason why it is 0."""
        variables, log_tau = self.factor_variables, self.factor_variables.log_tau(self.x)
        changes, zero = channel_changes(torch.expm1(log_tau), variables.groups, variables.scaled)
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
