"""Symmetry teleportation (Zhao et al. 2022, 2024): ascent on the group that acts on pairs of adjacent layers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport._arguments import check_choice, check_limits, check_steps
from teleport._engine.ascent import Ascent, BatchLoss, capped_step, out_of_room
from teleport._engine.caps import Caps
from teleport._engine.event import Event, LossFn, run_event
from teleport._engine.report import BatchReport, LayerReport, StepRecord, TeleportReport
from teleport._engine.transaction import Snapshot, roll_back_if_violated
from teleport._errors import UnsupportedModel
from teleport._symmetry.group_actions import Inverse
from teleport._symmetry.group_path import GroupPath, Rule, Stack, matrix_of
from teleport._tracing.layer_pairs import trace_layer_pairs
from teleport._tracing.layers import Layer


@dataclass(frozen=True)
class Symmetry:
    """Raise the gradient norm by a change of basis between adjacent layers, as far as the batch allows one.

    For each batch and step: every pair of linear layers with one activation between them gets an element ``I + T`` of
    the general linear group, T starts at 0, takes one step of gradient ascent on ``1/2 |grad L|^2``, and the action
    moves the weights. All pairs move together, one after the other, from the inputs on.

    Variants (V is the lower layer of a pair, U the upper, s the activation, X the lower one's inputs on the batch):

    - ``"2022"``: ``V <- s^-1((I+T) s(V X)) X^+``, ``U <- U (I - T)``; s a bijection of the reals onto themselves.
    - ``"2024"``: ``V <- (I+T) V``, ``U <- U s(V X) s((I+T) V X)^+``; any activation.
    - ``"corrected"``: that of 2022 with what it loses put back, ``V <- V + (s^-1((I+T) s(V X)) - V X) X^+``, and
      ``U <- U (I+T)^-1``.

    The published two are what their authors' code computes (but for one thing: 2022's also differentiates later weights
    by the earlier ones that it made them with; here a weight's gradient holds the others). They are not the identity
    at T = 0 (V becomes ``V X X^+``, U ``U s(V X) s(V X)^+``, so that outputs on other data change); their direction is
    taken there, and so is the check of the cap. With more than one pair they carry the inputs of later pairs on to
    first order only: 2022 takes them at T = 0, 2024 multiplies them by ``I + T``; ``"corrected"`` computes them. Their
    step is ``step="fixed"`` with ``guard="none"``, and a cap of 10 on the norm in 2024, none in 2022.

    Use it on multilayer perceptrons. The pair's output on the batch stays where X (2024: ``s((I+T) V X)``) has as many
    independent columns as samples; elsewhere the least-squares residual is what moves the loss
    (``LayerReport.residual``). On other data the loss moves in every variant.

    Args:
        variant: see above.
        lr: the length of a step of T along the gradient of ``1/2 |grad L|^2``. The published rate eta is one of
            ``|grad L|^2``: here it is ``lr = 2 eta``.
        steps: K, steps a batch.
        step: ``"cap"`` shortens a step so that the gradient norm lands on the cap and never falls; ``"fixed"`` takes
            full steps until the norm is found above the cap. (Full steps of the published variants leave only the
            first and last state in the report's trace: nothing else asks for the norm in between.)
        inverse: of ``I + T``, ``"exact"`` or ``"first_order"``; ``None`` is first order in 2022 and exact in corrected.
        cap: the largest gradient norm, ``None`` for none.
        relative_cap: a cap as a factor on the mean gradient norm over the event's batches before it. With both, the
            smaller holds.
        guard: ``"transaction"`` puts a batch's steps back where they changed its loss by more than
            ``tolerance * max(1, |loss|)``, or made anything non-finite; ``"none"`` keeps them.
        tolerance: of the guard, relative.

    Raises:
        ValueError: an argument outside its range.
    """

    variant: Literal["2022", "2024", "corrected"] = "corrected"
    lr: float = 0.01
    steps: int = 8
    step: Literal["cap", "fixed"] = "cap"
    inverse: Inverse | None = None
    cap: float | None = None
    relative_cap: float | None = None
    guard: Literal["transaction", "none"] = "transaction"
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        check_choice("variant", self.variant, ("2022", "2024", "corrected"))
        check_steps(self.lr, self.steps, self.step)
        check_limits(self.cap, self.relative_cap, self.guard, self.tolerance)
        if self.inverse is not None:
            check_choice("inverse", self.inverse, ("exact", "first_order"))
            if self.variant == "2024":
                raise ValueError("variant 2024 has no inverse of I + T, so inverse must be left out")

    @property
    def rule(self) -> Rule:
        """What the variant does to a pair."""
        published: Inverse = "exact" if self.variant == "corrected" else "first_order"
        return Rule(self.variant, self.inverse or published)

    def __call__(self, model: nn.Module, batches: Iterable[Any], loss_fn: LossFn) -> TeleportReport:
        """Teleport ``model`` in place.

        Args:
            model: a module with adjacent linear layers (``_tracing/layer_pairs.py``). Modes, buffers, ``requires_grad``,
                ``.grad`` and torch's global random state come back as they were; after an exception parameters do, too.
            batches: what ``loss_fn`` takes, one level set each; B batches of n samples.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor.

        Raises:
            ValueError: no batches, a loss that is no scalar or depends on no trainable parameter, or no such
                parameter; :class:`teleport.UnsupportedModel`, one, where no two layers are adjacent, or where the
                variant cannot invert an activation.
        """
        return run_event("symmetry", model, batches, loss_fn, lambda event: _Work(self, event).run())


class _Work:
    """The steps of one event."""

    def __init__(self, method: Symmetry, event: Event) -> None:
        self.method = method
        self.event = event
        self.reports: dict[str, LayerReport] = {}
        self.before: dict[str, tuple[Layer, Tensor]] = {}  # with its matrix before the event

    def run(self) -> tuple[list[BatchReport], list[LayerReport]]:
        """Teleport on each batch in turn."""
        method, event = self.method, self.event
        objectives = [event.objective(batch, event.trainable) for batch in event.batches]
        cap = Caps(method.cap, method.relative_cap, objectives).over(event.trainable)
        reports = [
            self._teleport(objective, self._stack(batch), cap)
            for batch, objective in zip(event.batches, objectives, strict=True)
        ]
        return reports, self._close()

    def _stack(self, batch: Any) -> Stack:
        """The pairs as they stand on a batch, and their layers in the report."""
        chains = trace_layer_pairs(lambda: self.event.evaluate(batch), self.event.named)
        try:
            stack = Stack(chains.pairs, self.method.rule)
        except UnsupportedModel as error:
            raise UnsupportedModel(f"variant {self.method.variant} cannot teleport the model: {error}") from None
        for layer, matrix in zip(stack.layers, stack.read(), strict=True):
            self.before.setdefault(layer.name, (layer, matrix.double()))
            self.reports.setdefault(layer.name, LayerReport(layer.name, layer.kind, layer.dimension))
        for name, reason in chains.unpaired.items():
            self.reports.setdefault(name, LayerReport(name, "parameter", 0, reason=reason))
        self.event.moved |= set(stack.parameters)
        return stack

    def _teleport(self, objective: BatchLoss, stack: Stack, cap: float) -> BatchReport:
        """At most K steps on one batch, undone where the guard says so."""
        snapshot = Snapshot(stack.parameters)
        went = self._ascend(objective, stack, cap)
        report = went.report()
        for name, missed in stack.residuals.items():
            self.reports[name].residual = max(self.reports[name].residual or 0.0, missed)
        if self.method.guard == "transaction":
            roll_back_if_violated(report, self.method.tolerance, snapshot)
        return report

    def _ascend(self, objective: BatchLoss, stack: Stack, cap: float) -> Ascent:
        """K times: T from 0, its gradient, one step of the action."""
        method, lossy = self.method, stack.rule.lossy
        start = point = objective.point(method.steps > 0 and not lossy)
        trace = [StepRecord(0, float(start.loss), start.norm)]
        stopped, taken = "steps done", 0
        for step in range(1, method.steps + 1):
            weights = stack.read()
            try:
                ray = stack.ray()
                here = ray.at_zero(objective) if lossy else point
                if out_of_room(here.norm, cap, method.step):
                    ray.move_to(0)
                    stopped = "above cap" if taken == 0 else "cap reached"
                    break
                ray.aim(objective.ascent_direction(here, stack.parameters))
                if not self._step(objective, ray, point.norm, cap):
                    stopped = "no ascent"
                    break
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # what is not finite, or a singular I + T, has no inverse
                stack.write(weights)
                stopped = "not finite"
                break
            stack.advance(ray)
            taken = step
            if step == method.steps or not lossy or method.step == "cap":  # else nothing asks for it
                point = objective.point(step < method.steps and not lossy)
                trace.append(StepRecord(step, float(point.loss), point.norm))
                if not math.isfinite(point.norm):
                    stopped = "not finite"
                    break
        end = point if stopped == "steps done" else objective.point(False)
        return Ascent(start, end, taken, stopped, trace)

    def _step(self, objective: BatchLoss, ray: GroupPath, norm: float, cap: float) -> bool:
        """One step along ``ray``; whether it was taken."""
        if self.method.step == "fixed":
            ray.move_to(self.method.lr)
            return True
        return capped_step(objective, ray, self.method.lr, norm, cap, False)[0] > 0

    def _close(self) -> list[LayerReport]:
        """Measure how far each layer went."""
        for name, (layer, before) in self.before.items():
            report = self.reports[name]
            distance = float((matrix_of(layer).double() - before).norm())
            report.relative_change = distance / (float(before.norm()) or 1.0)
            report.reason = "" if report.relative_change else "no step was taken or kept"
        return list(self.reports.values())
