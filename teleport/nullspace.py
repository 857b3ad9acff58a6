"""Null-space gradient projection (Wu et al. 2025, Algorithm 1)."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport.ascent import Objective, Point, ascend
from teleport.capture import Capture, capture
from teleport.ledger import Ledger, Moving
from teleport.objectives import half_squared_norm
from teleport.report import BatchReport, TeleportReport
from teleport.transaction import Snapshot, broken_promise
from teleport.undisturbed import undisturbed

log = logging.getLogger(__name__)

LossFn = Callable[[nn.Module, Any], Tensor]


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
        _check_positive(lr=lr, cap=cap, relative_cap=relative_cap, tolerance=tolerance)
        if steps < 0:
            raise ValueError(f"steps must not be negative, got {steps}")
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
        _check_choice("step", step, ("cap", "fixed"))
        _check_choice("guard", guard, ("transaction", "none"))
        _check_choice("objective_params", objective_params, ("all", "moved"))
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
                torch's global random state come back as they were. After an exception the parameters do, too.
            batches: what ``loss_fn`` takes, one level set each; B batches of n samples.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
            constraint: batches whose layer inputs are protected, all together, instead of each batch's own; an
                objective on other data than the constraint frees the first layer too.

        Raises:
            ValueError: no batches, a loss that is no scalar or depends on no trainable parameter, or no such
                parameter.
        """
        start = time.perf_counter()
        batches = list(batches)
        constraint = None if constraint is None else list(constraint)
        if not batches or constraint == []:
            raise ValueError("a teleport needs at least one batch")
        with undisturbed(model) as random:

            def evaluate(batch: Any) -> Tensor:
                random.restart()
                loss = loss_fn(model, batch)
                if not isinstance(loss, Tensor) or loss.numel() != 1:
                    raise ValueError("loss_fn must return a scalar tensor")
                if not loss.requires_grad:
                    raise ValueError("the loss does not depend on any trainable parameter of the model")
                return loss.reshape(())

            report = _Event(self, model, batches, constraint, evaluate).run(start)
        if report.no_op:
            log.info("the teleport moved nothing: %s", "; ".join(report.reasons().splitlines()))
        return report


class _Event:
    """One teleport: what its batches share."""

    def __init__(
        self,
        method: NullSpace,
        model: nn.Module,
        batches: list[Any],
        constraint: list[Any] | None,
        evaluate: Callable[[Any], Tensor],
    ) -> None:
        self.method = method
        self.batches = batches
        self.constraint = constraint
        self.evaluate = evaluate
        self.named = dict(model.named_parameters())
        self.trainable = [parameter for parameter in self.named.values() if parameter.requires_grad]
        if not self.trainable:
            raise ValueError("the model has no trainable parameter to teleport")
        self.ledger = Ledger()
        self.moved: set[nn.Parameter] = set()

    def run(self, start: float) -> TeleportReport:
        """Teleport on each batch in turn; an exception on the way puts all parameters back."""
        before = Snapshot(self.named.values())
        try:
            report = self._run(start)
        except BaseException:
            before.restore()
            raise
        before.restore_all_but(self.moved)
        return report

    def _run(self, start: float) -> TeleportReport:
        loss_before = self._mean_loss(self.batches)
        caps = _Caps(self.method, [self._objective(batch, self.trainable) for batch in self.batches])
        lasting = self.constraint is not None and self.method.threshold == 1  # at the exact null space no input changes
        moving: Moving | None = None
        reports = []
        for batch in self.batches:
            if moving is None or not lasting:
                moving = self.ledger.open(self._capture(self.constraint or [batch]), self.method.threshold)
            self.ledger.next_batch()
            reports.append(self._teleport(batch, moving, caps))
        last = reports[-1]
        return TeleportReport(
            method="nullspace",
            loss_before=loss_before,
            loss_after=self._mean_loss(self.batches),
            gradient_norm_before=reports[0].gradient_norm_before,
            gradient_norm_after=last.gradient_norm_after if last.accepted else last.gradient_norm_before,
            batches=reports,
            layers=self.ledger.close(),
            seconds=time.perf_counter() - start,
        )

    def _mean_loss(self, batches: list[Any]) -> float:
        return float(torch.stack([self.evaluate(batch).detach() for batch in batches]).mean())

    def _objective(self, batch: Any, parameters: list[nn.Parameter]) -> Objective:
        return Objective(lambda: self.evaluate(batch), parameters)

    def _capture(self, batches: list[Any]) -> Capture:
        shared = self.constraint is None and self.method.threshold == 1
        return capture(self.evaluate, batches, self.named, shared_objective=shared)

    def _teleport(self, batch: Any, moving: Moving, caps: _Caps) -> BatchReport:
        """At most K steps on the level set of one batch, undone where the guard says so."""
        method = self.method
        parameters = list(dict.fromkeys(block.parameter for layer, _ in moving for block in layer.blocks))
        self.moved |= set(parameters)
        over = parameters if method.objective_params == "moved" and parameters else self.trainable
        objective = self._objective(batch, over)
        snapshot = Snapshot(parameters)
        kept_loss = self._mean_loss(self.constraint) if self.constraint and self._guarded else None
        went = ascend(
            objective,
            parameters,
            lambda point: self._direction(objective, point, moving, parameters),
            lr=method.lr,
            steps=method.steps if moving else 0,
            cap=caps.over(over),
            rule=method.step,
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
                before, after = kept_loss, self._mean_loss(self.constraint)
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


class _Caps:
    """The cap on the gradient norm, absolute, relative to the norms before the event, or the smaller of both."""

    def __init__(self, method: NullSpace, objectives: list[Objective]) -> None:
        self.absolute = math.inf if method.cap is None else method.cap
        self.factor = method.relative_cap
        self.before: list[dict[nn.Parameter, float]] = []  # a batch: each parameter's 1/2 |grad|^2
        if self.factor is not None:
            for objective in objectives:
                gradients = objective.point(differentiable=False).gradients
                halves = [float(half_squared_norm([gradient])) for gradient in gradients]
                self.before.append(dict(zip(objective.parameters, halves, strict=True)))

    def over(self, parameters: list[nn.Parameter]) -> float:
        """The cap where the gradient norm is over these parameters."""
        if self.factor is None:
            return self.absolute
        norms = [math.sqrt(2 * sum(halves[parameter] for parameter in parameters)) for halves in self.before]
        return min(self.absolute, self.factor * sum(norms) / len(norms))


def _check_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
