"""Symmetry teleportation (Zhao et al.

2022, 2024): ascent on the group that acts on pairs of adjacent layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport._arguments import check_choice, check_limits, check_steps
from teleport._engine.ascent import Ascent
from teleport._engine.batch_loss import BatchLoss
from teleport._engine.capped_step import capped_step, out_of_room
from teleport._engine.caps import Caps
from teleport._engine.contract import LossFn, StepMonitor
from teleport._engine.event import Event
from teleport._engine.finiteness import all_finite, not_finite_along, not_finite_at
from teleport._engine.layer_reports import PairLayerReport
from teleport._engine.parameter_statistics import relative_change
from teleport._engine.progress import Callback
from teleport._engine.report import BatchReport, StepRecord, TeleportReport
from teleport._engine.run_event import run_event
from teleport._engine.statuses import Stopped
from teleport._engine.transaction import Snapshot, roll_back_if_violated
from teleport._errors import UnsupportedModel
from teleport._processes.ranks import Processes
from teleport._spaces.norms import length_of
from teleport._symmetry.group_actions import Inverse
from teleport._symmetry.group_path import AdjacentLayers, GroupPath, PairAction, matrix_of
from teleport._tracing.layer_pairs import trace_layer_pairs
from teleport._tracing.layers import Layer


@dataclass(frozen=True)
class Symmetry:
    """Raise the gradient norm by a change of basis between adjacent layers, as far as the batch allows one.

    Per batch and step: every pair of linear layers with one activation between them gets an element ``I + T`` of the
    general linear group. T starts at 0 and takes one step of gradient ascent on ``1/2 |grad L|^2``, and the action
    moves the weights. All pairs move in one step, in the order from the inputs to the outputs.

    Variants (V is the lower layer of a pair, U the upper, s the activation, X the lower one's inputs on the batch):

    - ``"2022"``: ``V <- s^-1((I+T) s(V X)) X^+``, ``U <- U (I - T)``; s a bijection of the reals onto themselves.
    - ``"2024"``: ``V <- (I+T) V``, ``U <- U s(V X) s((I+T) V X)^+``; any activation.
    - ``"corrected"``: the action of 2022 that keeps the component of V outside the span of X,
      ``V <- V + (s^-1((I+T) s(V X)) - V X) X^+``, ``U <- U (I+T)^-1``.

    The two published variants compute what their authors' code computes, with one exception: the code of 2022 also
    differentiates later weights by the earlier ones that it made them with; here the gradient of a weight keeps the
    other weights constant. Both are not the identity at T = 0 (V becomes ``V X X^+``, U ``U s(V X) s(V X)^+``, so that
    outputs on other data change); their direction and the check of the cap are taken at those weights. With more than
    one pair they compute the inputs of later pairs to first order only: 2022 takes them at T = 0, 2024 multiplies them
    by ``I + T``; ``"corrected"`` computes them exactly. The published step is ``step="fixed"`` with ``guard="none"``,
    with a cap of 10 on the norm in 2024 and none in 2022.

    Use it on multilayer perceptrons. The pair's output on the batch is kept if X (2024: ``s((I+T) V X)``) has as many
    independent columns as samples; otherwise the least-squares residual (``PairLayerReport.residual``) changes
    the loss. On other data the loss changes in every variant.

    Args:
        variant: see above.
        lr: the length of a step of T along the gradient of ``1/2 |grad L|^2``, in units of ``lr_unit``.
        lr_unit: ``"relative"`` for the Frobenius norm of the identity of all pairs, which T is added to; ``"absolute"``
            for the gradient itself, as published. The published rate eta is that of ``|grad L|^2``: ``lr = 2 eta``.
        steps: K, steps per batch.
        step: ``"cap"`` shortens a step so that the gradient norm ends just below the cap and never falls; ``"fixed"``
            takes full steps until the norm is above the cap. (With full steps of the published variants the report's
            trace has the first and the last state only: nothing else needs the norm in between.)
        inverse: of ``I + T``, ``"exact"`` or ``"first_order"``; ``None`` is first order in 2022 and exact in corrected.
        cap: the largest gradient norm, ``None`` for none.
        relative_cap: a cap as a factor on the mean gradient norm over the event's batches before the event. With both,
            the smaller holds.
        guard: ``"transaction"`` rolls a batch's steps back if they changed its loss by more than
            ``tolerance * max(1, |loss|)``, or made anything non-finite; ``"none"`` keeps them.
        tolerance: of the guard, relative.

    Raises:
        ValueError: an argument outside its range.
    """

    variant: Literal["2022", "2024", "corrected"] = "corrected"
    lr: float = 0.1
    steps: int = 8
    step: Literal["cap", "fixed"] = "cap"
    inverse: Inverse | None = None
    cap: float | None = None
    relative_cap: float | None = 2.0
    guard: Literal["transaction", "none"] = "transaction"
    tolerance: float = 1e-3
    lr_unit: Literal["relative", "absolute"] = "relative"

    def __post_init__(self) -> None:
        check_choice("variant", self.variant, ("2022", "2024", "corrected"))
        check_steps(self.lr, self.steps, self.step, self.lr_unit)
        check_limits(self.cap, self.relative_cap, self.guard, self.tolerance)
        if self.inverse is not None:
            check_choice("inverse", self.inverse, ("exact", "first_order"))
            if self.variant == "2024":
                raise ValueError("variant 2024 has no inverse of I + T, so inverse must be left out")

    @property
    def pair_action(self) -> PairAction:
        """The variant's action on one pair."""
        published: Inverse = "exact" if self.variant == "corrected" else "first_order"
        return PairAction(self.variant, self.inverse or published)

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
            model: a module with adjacent linear layers (``_tracing/layer_pairs.py``). Modes, buffers,
                ``requires_grad``, ``.grad`` and torch's global random state are restored; after an exception the
                parameters are, too.
            batches: arguments for ``loss_fn``, one level set each; B batches of n samples.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
            generator: accepted as of every method, and not used: nothing is drawn.
            callback: called per batch and per step, see ``teleport.Callback``.
            keep_modes: see :class:`teleport.Teleporter`.
            process_group: see :class:`teleport.Teleporter`.

        Raises:
            ValueError: there are no batches or no trainable parameters, or the loss is not a scalar or depends on no
                trainable parameter.
            UnsupportedModel: (a ``ValueError``) no two layers are adjacent, or the variant cannot invert an activation.
        """
        relative = self.relative_cap is not None

        def work(event: Event) -> tuple[list[BatchReport], list[PairLayerReport]]:
            return _SymmetryEvent(self, event).run()

        return run_event(
            "symmetry",
            model,
            batches,
            loss_fn,
            work,
            callback,
            gradients=relative,
            keep_modes=keep_modes,
            process_group=process_group,
        )


class _SymmetryEvent:
    """One event: the steps on each batch, and the report of each layer."""

    def __init__(self, method: Symmetry, event: Event) -> None:
        self.method = method
        self.event = event
        self.reports: dict[str, PairLayerReport] = {}
        self.before: dict[str, tuple[Layer, Tensor]] = {}  # each layer with its matrix before the event

    def run(self) -> tuple[list[BatchReport], list[PairLayerReport]]:
        """Teleport on each batch in turn."""
        method, event = self.method, self.event
        cap = Caps(method.cap, method.relative_cap, event).over(event.trainable)
        objectives = [event.batch_loss(batch, event.trainable) for batch in event.batches]
        reports = []
        for number, (batch, objective) in enumerate(zip(event.batches, objectives, strict=True)):
            monitor = event.monitor.on(number, method.steps)
            reports.append(self._teleport(objective, self._adjacent_layers(batch), cap, monitor))
            if event.monitor.stopped:
                break
        return reports, self._close()

    def _adjacent_layers(self, batch: Any) -> AdjacentLayers:
        """The adjacent layers on a batch, which are entered in the report."""
        group, traced = self.event.group, trace_layer_pairs(lambda: self.event.evaluate(batch), self.event.named)
        group.agree(pairs_of_layers=[(each.lower.name, each.activation.name, each.upper.name) for each in traced.pairs])
        pairs = [replace(pair, inputs=group.joined(pair.inputs)) for pair in traced.pairs]
        try:
            layers = AdjacentLayers(pairs, self.method.pair_action)
        except UnsupportedModel as error:
            raise UnsupportedModel(f"variant {self.method.variant} cannot teleport the model: {error}") from None
        for layer, matrix in zip(layers.layers, layers.matrices(), strict=True):
            self.before.setdefault(layer.name, (layer, matrix.double()))
            self.reports.setdefault(layer.name, PairLayerReport(layer.name, layer.kind, layer.dimension))
        for name, reason in traced.unpaired.items():
            self.reports.setdefault(name, PairLayerReport(name, "parameter", 0, reason=reason))
        self.event.moved |= set(layers.parameters)
        return layers

    def _teleport(self, objective: BatchLoss, layers: AdjacentLayers, cap: float, monitor: StepMonitor) -> BatchReport:
        """At most K steps on one batch, rolled back if they violate the tolerance."""
        snapshot = Snapshot(layers.parameters)
        report = self._ascend(objective, layers, cap, monitor).report()
        for name, residual in layers.residuals.items():
            self.reports[name].residual = max(self.reports[name].residual or 0.0, residual)
        if self.method.guard == "transaction":
            roll_back_if_violated(report, self.method.tolerance, snapshot)
        return report

    def _ascend(self, objective: BatchLoss, layers: AdjacentLayers, cap: float, monitor: StepMonitor) -> Ascent:
        """K times: T from 0, its gradient, one step of the action."""
        method, identity = self.method, layers.action.identity_at_zero
        start = point = objective.point(method.steps > 0 and identity)
        trace = [StepRecord(0, float(start.loss), start.norm)]
        stopped, taken = Stopped.STEPS_DONE, 0
        if monitor(trace[0]):
            return Ascent(start, start, 0, Stopped.CALLBACK, trace)
        if reason := not_finite_at(objective, start, layers.parameters):
            return Ascent.refused(start, reason)
        for step in range(1, method.steps + 1):
            weights = layers.matrices()
            try:
                path = GroupPath(layers)
                at_zero = point if identity else path.evaluate_at_zero(objective)
                if out_of_room(at_zero.norm, cap, method.step):
                    path.move_to(0)
                    stopped = Stopped.ABOVE_CAP if taken == 0 else Stopped.CAP_REACHED
                    break
                directions = objective.ascent_direction(at_zero, layers.parameters)
                if not all_finite(directions):
                    stopped, reason = Stopped.NOT_FINITE, not_finite_along(objective, layers.parameters)
                    layers.write(weights)
                    break
                path.compute_directions(directions)
                if not self._step(objective, path, point.norm, cap):
                    stopped = Stopped.NO_ASCENT
                    break
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # not finite, or singular
                layers.write(weights)
                stopped = Stopped.NOT_FINITE
                break
            layers.record_step(path)
            taken = step
            needed = step == method.steps or identity or method.step == "cap"
            if needed or self.event.monitor.active:  # otherwise nothing needs the norm
                point = objective.point(step < method.steps and identity)
                trace.append(StepRecord(step, float(point.loss), point.norm))
                if not math.isfinite(point.norm):
                    stopped = Stopped.NOT_FINITE
                    break
                if monitor(trace[-1]):
                    stopped = Stopped.CALLBACK
                    break
            else:
                monitor(StepRecord(step, math.nan, math.nan))
        end = point if stopped in (Stopped.STEPS_DONE, Stopped.CALLBACK) else objective.point(False)
        return Ascent(start, end, taken, stopped, trace, reason)

    def _step(self, objective: BatchLoss, path: GroupPath, norm: float, cap: float) -> bool:
        """One step along ``path``; whether it was taken."""
        length = self.method.lr
        if self.method.lr_unit == "relative":
            distance = length_of(path.directions)
            length *= math.sqrt(sum(len(direction) for direction in path.directions)) / (distance or 1.0)
        if self.method.step == "fixed":
            path.move_to(length)
            return True
        return capped_step(objective, path, length, norm, cap, False)[0] > 0

    def _close(self) -> list[PairLayerReport]:
        """The reports of all layers, with their relative change."""
        for name, (layer, before) in self.before.items():
            report = self.reports[name]
            report.relative_change = relative_change(before, matrix_of(layer).double())
            report.reason = "" if report.relative_change else "no step was taken or kept"
        return list(self.reports.values())
