"""Teleportation along the orbit of a group action of one's own (Zhao et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport._arguments import check_limits, check_steps
from teleport._engine.ascent import BatchLoss, Point, ascend
from teleport._engine.caps import Caps
from teleport._engine.event import Event, LossFn, run_event
from teleport._engine.objectives import TeleportObjective, objective_of
from teleport._engine.parameter_statistics import ParameterStatistics
from teleport._engine.report import BatchReport, LayerReport, TeleportReport
from teleport._engine.transaction import Snapshot, roll_back_if_violated
from teleport._spaces.norms import inner

Action = Callable[[Tensor, dict[str, Tensor]], Mapping[str, Tensor]]
"""``action(theta, weights)``: from a group element and all parameters by name to those that it moves, where it moves
them. Differentiable in theta; at theta = 0 it moves nothing."""


class Orbit:
    """Raise the gradient norm along the orbit of a symmetry of the loss that you know: bring your own group.

    For each batch: theta starts at 0, where the action is the identity, and takes ``steps`` steps of gradient ascent on
    the objective at the weights that the action leads to, ``max_theta |grad L(g(theta) w)|`` (Zhao et al. 2022). Each
    point of the way is one action on the weights that the batch began with, so that errors do not add up.

    Use it where the loss has a symmetry that no other method here finds: rotations between two linear maps, a scale of
    inputs, a permutation made continuous, the level sets of a test function. That the loss does not depend on theta is
    your claim; the guard takes a move back on which it does.

    Args:
        action: ``action(theta, weights)``, see :data:`Action`. It may move trainable parameters only.
        shape: of theta; ``()`` for groups of one number. theta has the dtype and device of the first trainable
            parameter.
        lr: the length of a step of theta along the gradient of the objective.
        steps: K, steps a batch.
        objective: what is raised or lowered: a name in ``teleport.OBJECTIVES``, or one of your own. That of Zhao et al.
            is the squared gradient norm; its logarithm takes steps that do not depend on the scale of the loss.
        objective_scale: see :class:`teleport.NullSpace`, as for all that follow.
        step: ``"cap"`` or ``"fixed"``.
        cap: the largest gradient norm, ``None`` for none.
        relative_cap: a cap as a factor on the mean gradient norm over the event's batches before it.
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
        relative_cap: float | None = None,
        guard: Literal["transaction", "none"] = "transaction",
        tolerance: float = 1e-3,
    ) -> None:
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

    def __call__(self, model: nn.Module, batches: Iterable[Any], loss_fn: LossFn) -> TeleportReport:
        """Teleport ``model`` in place.

        Args:
            model: any module that the action is one of. What comes back as it was is what :class:`teleport.NullSpace`
                says.
            batches: what ``loss_fn`` takes, one level set each; B batches of n samples.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor.

        Raises:
            ValueError: no batches, a loss that is no scalar or depends on no trainable parameter, no such parameter;
                or an action that moves something at theta = 0, what is no trainable parameter or changes its shape, or
                that does not depend on theta.
        """
        return run_event("orbit", model, batches, loss_fn, self._work)

    def _work(self, event: Event) -> tuple[list[BatchReport], list[LayerReport]]:
        ledger = ParameterStatistics(event.named)
        losses = [event.objective(batch, event.trainable) for batch in event.batches]
        cap = Caps(self.cap, self.relative_cap, losses).over(event.trainable)
        reports = [self._teleport(loss, _Orbit(self.action, self.shape, event), cap) for loss in losses]
        return reports, ledger.close()

    def _teleport(self, loss: BatchLoss, orbit: _Orbit, cap: float) -> BatchReport:
        """At most K steps of theta on one batch, undone where the guard says so."""
        objective = self._objective

        def direction(point: Point) -> list[Tensor]:
            pulled = orbit.pulled(objective.direction(loss, point, orbit.moved))
            return [pulled if objective.ascended else -pulled]

        went = ascend(
            _Followed(loss, orbit),
            [orbit.theta],
            direction,
            lr=self.lr,
            steps=self.steps,
            cap=cap,
            rule=self.step,
            score=lambda point: objective.score(loss, point),
        )
        report = went.report()
        if self.guard == "transaction":
            roll_back_if_violated(report, self.tolerance, orbit.snapshot)
        return report


class _Orbit:
    """The orbit of the weights as they stand.

    Attributes:
        theta: where on the orbit, a parameter of its own.
        moved: the parameters that the action moves.
        snapshot: of them, at theta = 0.
    """

    def __init__(self, action: Action, shape: tuple[int, ...], event: Event) -> None:
        self._action = action
        self._start = {name: parameter.detach().clone() for name, parameter in event.named.items()}
        self.theta = nn.Parameter(event.trainable[0].new_zeros(shape))
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
            raise ValueError(f"the action moves '{name}', which is no trainable parameter of the model")
        start = self._start[name]
        if value.shape != start.shape:
            raise ValueError(f"the action makes '{name}' of shape {list(value.shape)}, expected {list(start.shape)}")
        rounding = torch.finfo(start.dtype).eps ** 0.5
        if not float((value.detach() - start).norm()) <= rounding * max(1.0, float(start.norm())):
            raise ValueError(f"the action moves '{name}' at theta = 0, where it must be the identity")

    def follow(self) -> None:
        """Set the parameters to where theta leads; at theta = 0 they are what they were, bit for bit."""
        self.snapshot.restore()
        if not self.theta.any():
            return
        with torch.no_grad():
            placed = self._action(self.theta, dict(self._start))
            for name, parameter in zip(self._names, self.moved, strict=True):
                parameter.copy_(placed[name])

    def pulled(self, directions: list[Tensor]) -> Tensor:
        """The gradient with respect to theta, from that with respect to the parameters that it moves."""
        placed = self._action(self.theta, dict(self._start))
        slope = inner((placed[name] for name in self._names), directions)
        (gradient,) = torch.autograd.grad(slope, [self.theta], materialize_grads=True)
        return gradient


class _Followed(BatchLoss):
    """The loss as a function of theta: the parameters follow it before they are looked at."""

    def __init__(self, loss: BatchLoss, orbit: _Orbit) -> None:
        super().__init__(loss.evaluate, loss.parameters)
        self._orbit = orbit

    def point(self, differentiable: bool) -> Point:
        """The loss and its gradients where theta leads."""
        self._orbit.follow()
        return super().point(differentiable)
