"""Teleportation along the orbit of a group action that the caller gives (Zhao et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport._arguments import check_limits, check_steps, check_whole
from teleport._engine.ascent import ascend
from teleport._engine.batch_loss import BatchLoss, Point
from teleport._engine.caps import Caps
from teleport._engine.contract import LossFn, StepMonitor
from teleport._engine.event import Event
from teleport._engine.finiteness import all_finite
from teleport._engine.layer_reports import LayerReport
from teleport._engine.objectives import TeleportObjective, objective_of
from teleport._engine.parameter_statistics import ParameterStatistics
from teleport._engine.progress import Callback
from teleport._engine.report import BatchReport, TeleportReport
from teleport._engine.run_event import run_event
from teleport._engine.transaction import Snapshot, roll_back_if_violated
from teleport._errors import UnsupportedModel
from teleport._processes.ranks import Processes
from teleport._spaces.norms import inner
from teleport._tracing.ownership import distinct_elements

Action = Callable[[Tensor, dict[str, Tensor]], Mapping[str, Tensor]]
"""``action(theta, weights)`` returns the new values of the parameters that it moves, by name, given a group element and
the values of all parameters by name. It is differentiable in theta, and the identity at theta = 0."""


class Orbit:
    """Raise the gradient norm along the orbit of a known symmetry of the loss, given by the caller.

    Per batch: theta starts at 0, where the action is the identity, and takes ``steps`` steps of gradient ascent on the
    objective at the transformed weights, ``max_theta |grad L(g(theta) w)|`` (Zhao et al. 2022). Each step applies one
    action to the weights from the start of the batch, so that errors do not accumulate.

    Use it if the loss has a symmetry that no other method here finds: rotations between two linear maps, a scale of
    inputs, a permutation made continuous, the level sets of a test function. That the loss does not depend on theta is
    the caller's claim; the guard rolls back a move that changes the loss.

    Args:
        action: ``action(theta, weights)``, see :data:`Action`. It may move trainable parameters only.
        shape: of theta; ``()`` for groups of one number. theta has the device of the first
            trainable parameter, and its dtype, a real one.
        lr: the length of a step of theta along the gradient of the objective.
        steps: K, steps per batch.
        objective: the objective that is raised or lowered: a name in ``teleport.OBJECTIVES``, or a
            :class:`teleport.TeleportObjective`. That of Zhao et al. is the squared gradient norm; the steps on its
            logarithm do not depend on the scale of the loss.
        objective_scale: see :class:`teleport.NullSpace`, as for all arguments below.
        step: ``"cap"`` or ``"fixed"``.
        cap: the largest gradient norm, ``None`` for none.
        relative_cap: a cap as a factor on the mean gradient norm over the event's batches before the event.
        guard: ``"transaction"`` or ``"none"``.
        tolerance: of the guard, relative.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        action: Action,
        shape: tuple[int, ...] = (),
        lr: float = 1.0,
        steps: int = 10,
        objective: str | TeleportObjective = "log_gradient_norm",
        objective_scale: float | None = None,
        step: Literal["cap", "fixed"] = "cap",
        cap: float | None = None,
        relative_cap: float | None = 2.0,
        guard: Literal["transaction", "none"] = "transaction",
        tolerance: float = 1e-3,
    ) -> None:
        if not callable(action):
            raise TypeError(f"action must be a function of theta and the parameters by name, got {action!r}")
        if not isinstance(shape, tuple | list):
            raise TypeError(f"shape must be a tuple of whole numbers, got {shape!r}")
        for length in shape:
            check_whole(shape=length)
        check_steps(lr, steps, step)
        check_limits(cap, relative_cap, guard, tolerance)
        self.action = action
        self.shape = shape
        self.lr = lr
        self.steps = steps
        self.objective = objective
        self.objective_scale = objective_scale
        self.step = step
        self.cap = cap
        self.relative_cap = relative_cap
        self.guard = guard
        self.tolerance = tolerance
        self._objective = objective_of(objective, objective_scale)

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
            model: any module with the parameters that the action moves. What is restored is told in
                :class:`teleport.NullSpace`.
            batches: arguments for ``loss_fn``, one level set each; B batches of n samples.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
            generator: accepted as of every method, and not used: nothing is drawn.
            callback: called per batch and per step, see ``teleport.Callback``.
            keep_modes: see :class:`teleport.Teleporter`.
            process_group: see :class:`teleport.Teleporter`.

        Raises:
            ValueError: there are no batches or no trainable parameters; the loss is not a scalar or depends on no
                trainable parameter; or the action is not the identity at theta = 0, moves something other than a
                trainable parameter, changes a shape, or does not depend on theta.
        """
        relative = self.relative_cap is not None
        return run_event(
            "orbit",
            model,
            batches,
            loss_fn,
            self._work,
            callback,
            gradients=relative,
            keep_modes=keep_modes,
            process_group=process_group,
        )

    def _work(self, event: Event) -> tuple[list[BatchReport], list[LayerReport]]:
        statistics = ParameterStatistics(event.named, event.start)
        losses = [event.batch_loss(batch, event.trainable) for batch in event.batches]
        cap = Caps(self.cap, self.relative_cap, event).over(event.trainable)
        reports = []
        for number, loss in enumerate(losses):
            monitor = event.monitor.on(number, self.steps)
            reports.append(self._teleport(loss, _Orbit(self.action, self.shape, event), cap, monitor))
            if event.monitor.stopped:
                break
        return reports, statistics.close(event.moved)

    def _teleport(self, loss: BatchLoss, orbit: _Orbit, cap: float, monitor: StepMonitor) -> BatchReport:
        """At most K steps of theta on one batch, rolled back if they violate the tolerance."""
        objective = self._objective

        def direction(point: Point) -> list[Tensor]:
            gradient = orbit.pull_back(objective.direction(loss, point, orbit.moved))
            return [gradient if objective.ascended else -gradient]

        ascent = ascend(
            _OrbitLoss(loss, orbit),
            [orbit.theta],
            direction,
            lr=self.lr,
            steps=self.steps,
            cap=cap,
            rule=self.step,
            score=lambda point: objective.score(loss, point),
            slope=objective.slope,
            moving=orbit.moved,
            monitor=monitor,
        )
        report = ascent.report()
        if self.guard == "transaction":
            roll_back_if_violated(report, self.tolerance, orbit.snapshot)
        return report


class _Orbit:
    """The orbit of the current weights.

    Attributes:
        theta: the group element, a parameter of its own.
        moved: the parameters that the action moves.
        snapshot: of these parameters, at theta = 0.
    """

    def __init__(self, action: Action, shape: tuple[int, ...], event: Event) -> None:
        self._action = action
        self._start = {name: parameter.detach().clone() for name, parameter in event.named.items()}
        first = event.trainable[0]
        self.theta = nn.Parameter(first.new_zeros(shape, dtype=first.dtype.to_real()))
        at_zero = action(self.theta, dict(self._start))
        self._names = list(at_zero)
        for name, value in at_zero.items():
            self._check(name, value, event.named)
        if not any(value.requires_grad for value in at_zero.values()):
            raise ValueError("the action does not depend on theta")
        self.moved = [event.named[name] for name in self._names]
        self.snapshot = Snapshot(self.moved)
        event.moved |= set(self.moved)

    def _check(self, name: str, value: Tensor, named: Mapping[str, nn.Parameter]) -> None:
        if name not in named or not named[name].requires_grad:
            raise ValueError(f"the action moves '{name}', which is not a trainable parameter of the model")
        if not distinct_elements(named[name]):
            raise UnsupportedModel(
                f"'{name}' has elements that share memory, as if expanded: clone it, or do not move it"
            )
        start = self._start[name]
        if value.shape != start.shape:
            raise ValueError(f"the action returns '{name}' of shape {list(value.shape)}, expected {list(start.shape)}")
        if value.is_complex() and not start.is_complex():
            raise ValueError(f"the action returns complex values of '{name}', which is real")
        rounding = torch.finfo(start.dtype).eps ** 0.5
        distance = float((value.detach() - start).norm())
        if all_finite([start]) and not distance <= rounding * max(1.0, float(start.norm())):
            raise ValueError(f"the action moves '{name}' at theta = 0, where it must be the identity")

    def apply(self) -> None:
        """Set the parameters to the action of theta; at theta = 0 they are what they were, bit for bit."""
        self.snapshot.restore()
        if not self.theta.any():
            return
        with torch.no_grad():
            values = self._action(self.theta, dict(self._start))
            for name, parameter in zip(self._names, self.moved, strict=True):
                parameter.copy_(values[name])

    def pull_back(self, gradients: list[Tensor]) -> Tensor:
        """The gradient with respect to theta, from the gradients with respect to the moved parameters."""
        values = self._action(self.theta, dict(self._start))
        slope = inner((values[name] for name in self._names), gradients)
        (gradient,) = torch.autograd.grad(slope, [self.theta], materialize_grads=True)
        return gradient


class _OrbitLoss(BatchLoss):
    """The loss as a function of theta: the action is applied to the parameters before each evaluation."""

    def __init__(self, loss: BatchLoss, orbit: _Orbit) -> None:
        super().__init__(loss.evaluate, loss.parameters, loss.names, loss.batch, loss.group)
        self._orbit = orbit

    def point(self, differentiable: bool) -> Point:
        """The loss and its gradients at the action of theta."""
        self._orbit.apply()
        return super().point(differentiable)
