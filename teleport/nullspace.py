"""Null-space gradient projection (Wu et al. 2025, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport.ascent import Objective, Point, ascend, out_of_room
from teleport.caps import Caps
from teleport.capture import Capture, capture
from teleport.checks import check_choice, check_positive
from teleport.event import Event, LossFn, run_event
from teleport.ledger import Ledger, Moving
from teleport.report import BatchReport, LayerReport, StepRecord, TeleportReport
from teleport.transaction import Snapshot, broken_promise


class NullSpace:
    """Raise the gradient norm by moving weights where the layers' inputs do not see it.

    For each batch: find the space that each layer's inputs span, then take ``steps`` steps of gradient ascent on
    ``1/2 |grad L|^2`` with each layer's gradient projected on the complement. At ``threshold`` 1 no layer's output
    changes on the batch, so neither does the loss; the loss on other data does (``report.drift``).

    Use it early in training, where layers are wider than the rank of what they see. It cannot help where no layer has
    null dimensions (many positions, narrow layers: the report says so), where the gradient norm is above the cap
    already, or where the loss must not change on other data.

    Args:
        lr: eta_tel, the length of a step along the projected gradient of the objective.
        steps: K, steps a batch.
        threshold: tau in (0, 1]; 1 protects the numerical rank, below 1 the leading directions with that share of the
            inputs' energy (equation 3), and the loss moves a little.
        step: ``"cap"`` shortens a step so that the gradient norm lands on the cap and never falls; ``"fixed"`` is the
            paper's rule: steps of full length until the norm is found above the cap.
        cap: the largest gradient norm, ``None`` for none.
        relative_cap: a cap as a factor on the mean gradient norm over the event's batches before it. With both, the
            smaller holds.
        guard: ``"transaction"`` puts a batch's steps back where they changed the loss that was to stay (the batch's,
            or the constraint's where there is one) by more than ``tolerance * max(1, |loss|)``, or made anything
            non-finite; ``"none"`` keeps them, as the paper does.
        tolerance: of the guard, relative.
        objective_params: the gradient norm is over ``"all"`` trainable parameters or over the ``"moved"`` ones only.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        lr: float = 1.0,
        steps: int = 8,
        threshold: float = 1.0,
        step: Literal["cap", "fixed"] = "cap",
        cap: float | None = None,
        relative_cap: float | None = None,
        guard: Literal["transaction", "none"] = "transaction",
        tolerance: float = 1e-3,
        objective_params: Literal["all", "moved"] = "all",
    ) -> None:
        check_positive(lr=lr, cap=cap, relative_cap=relative_cap, tolerance=tolerance)
        if steps < 0:
            raise ValueError(f"steps must not be negative, got {steps}")
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
        check_choice("step", step, ("cap", "fixed"))
        check_choice("guard", guard, ("transaction", "none"))
        check_choice("objective_params", objective_params, ("all", "moved"))
        self.lr = lr
        self.steps = steps
        self.threshold = threshold
        self.step = step
        self.cap = cap
        self.relative_cap = relative_cap
        self.guard = guard
        self.tolerance = tolerance
        self.objective_params = objective_params

    def __call__(
        self, model: nn.Module, batches: Iterable[Any], loss_fn: LossFn, constraint: Iterable[Any] | None = None
    ) -> TeleportReport:
        """Teleport ``model`` in place.

        Args:
            model: any module. Its trainable parameters may move; modes, buffers, ``requires_grad``, ``.grad`` and
                torch's global random state come back as they were. After an exception the parameters do, too. Of
                a ``DistributedDataParallel`` pass the ``module``, whose gradients nobody waits for.
            batches: what ``loss_fn`` takes, one level set each; B batches of n samples.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
            constraint: batches whose layer inputs are protected, all together, instead of each batch's own; an
                objective on other data than the constraint frees the first layer too.

        Raises:
            ValueError: no batches, a loss that is no scalar or depends on no trainable parameter, or no such
                parameter.
        """
        constraint = None if constraint is None else list(constraint)
        if constraint == []:
            raise ValueError("a teleport needs at least one batch")
        return run_event("nullspace", model, batches, loss_fn, lambda event: _Work(self, event, constraint).run())


class _Work:
    """The steps of one event."""

    def __init__(self, method: NullSpace, event: Event, constraint: list[Any] | None) -> None:
        self.method = method
        self.event = event
        self.constraint = constraint
        self.ledger = Ledger()

    def run(self) -> tuple[list[BatchReport], list[LayerReport]]:
        """Teleport on each batch in turn."""
        method, event = self.method, self.event
        caps = Caps(
            method.cap, method.relative_cap, [event.objective(batch, event.trainable) for batch in event.batches]
        )
        lasting = self.constraint is not None and method.threshold == 1  # at the exact null space no input changes
        moving: Moving | None = None
        reports = []
        for batch in event.batches:
            here, versions = self._point(batch), self._versions()
            full = here is not None and out_of_room(here.norm, caps.over(event.trainable), method.step)
            if here is not None and full and moving is not None:
                reports.append(_stayed(here))  # before its inputs are decomposed for nothing
                continue
            if moving is None or not lasting:
                moving = self.ledger.open(self._capture(self.constraint or [batch]), method.threshold)
            self.ledger.next_batch()
            if self._versions() != versions:  # a model that writes into its parameters as it runs
                here = None
            reports.append(self._teleport(batch, moving, caps, here))
        return reports, self.ledger.close()

    def _capture(self, batches: list[Any]) -> Capture:
        shared = self.constraint is None and self.method.threshold == 1
        return capture(self.event.evaluate, batches, self.event.named, shared_objective=shared)

    def _point(self, batch: Any) -> Point | None:
        """The point that an ascent on ``batch`` starts from, where the objective is over all parameters."""
        if self.method.objective_params != "all":
            return None
        return self.event.objective(batch, self.event.trainable).point(differentiable=self.method.steps > 0)

    def _versions(self) -> list[int]:
        return [parameter._version for parameter in self.event.trainable]

    def _teleport(self, batch: Any, moving: Moving, caps: Caps, start: Point | None) -> BatchReport:
        """At most K steps on the level set of one batch, undone where the guard says so."""
        method = self.method
        parameters = list(dict.fromkeys(block.parameter for layer, _ in moving for block in layer.blocks))
        self.event.moved |= set(parameters)
        over = parameters if method.objective_params == "moved" and parameters else self.event.trainable
        objective = self.event.objective(batch, over)
        snapshot = Snapshot(parameters)
        kept_loss = self.event.mean_loss(self.constraint) if self.constraint and self._guarded else None
        went = ascend(
            objective,
            parameters,
            lambda point: self._direction(objective, point, moving, parameters),
            lr=method.lr,
            steps=method.steps if moving else 0,
            cap=caps.over(over),
            rule=method.step,
            start=start,
        )
        report = BatchReport(
            loss_before=float(went.start.loss),
            loss_after=float(went.end.loss),
            gradient_norm_before=went.trace[0].gradient_norm,
            gradient_norm_after=went.end.norm,
            steps=went.steps,
            stopped=went.stopped if moving else "nothing moves",
            trace=went.trace,
        )
        if self._guarded:
            before, after = report.loss_before, report.loss_after
            if self.constraint and kept_loss is not None:  # it is the constraint's loss that was promised to stay
                before, after = kept_loss, self.event.mean_loss(self.constraint)
            report.reason = broken_promise(before, after, report.gradient_norm_after, method.tolerance, snapshot)
        if report.reason:
            snapshot.restore()
            report.accepted, report.stopped = False, "rolled back"
        return report

    @property
    def _guarded(self) -> bool:
        return self.method.guard == "transaction"

    def _direction(
        self, objective: Objective, point: Point, moving: Moving, parameters: list[nn.Parameter]
    ) -> list[Tensor]:
        """``pi_l(grad_{W_l} L_tel)`` for each layer (equations 11 to 16), zero in the parts that no layer holds."""
        gradients = objective.ascent_direction(point, parameters)
        given = {p: torch.empty_like(p).copy_(g) for p, g in zip(parameters, gradients, strict=True)}
        projected = {p: torch.zeros_like(p, requires_grad=False) for p in parameters}
        for layer, subspace in moving:
            matrix = layer.gather(given)
            kept = subspace.project(matrix)
            if self.ledger.survived(layer, matrix, kept):
                layer.scatter(kept, projected)
        return [projected[parameter] for parameter in parameters]


def _stayed(point: Point) -> BatchReport:
    """The report of a batch whose gradient norm is above the cap already."""
    loss, norm = float(point.loss), point.norm
    return BatchReport(loss, loss, norm, norm, steps=0, stopped="above cap", trace=[StepRecord(0, loss, norm)])
