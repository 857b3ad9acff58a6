"""The event driver of the methods in the null space of the layer inputs (Wu et al. 2025, Algorithm 1).

For each batch it traces the layer inputs, finds the null space of each layer, poses the ascent problem, runs the step
rule of the method on it and rolls the batch back if the guard is violated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import nn

from teleport._allocator import hand_back
from teleport._arguments import check_batches
from teleport._engine.batch_loss import BatchLoss, Point
from teleport._engine.capped_step import out_of_room
from teleport._engine.caps import Caps
from teleport._engine.contract import LossFn, StepMonitor
from teleport._engine.event import Event
from teleport._engine.landing import Shape
from teleport._engine.layer_reports import NullSpaceLayerReport
from teleport._engine.progress import Callback
from teleport._engine.report import BatchReport, TeleportReport
from teleport._engine.run_event import run_event
from teleport._engine.statuses import Stopped
from teleport._engine.transaction import Snapshot, roll_back_if_violated
from teleport._frozen_forward.recorded_graph import GraphRecorder
from teleport._null_space.ascent_problem import AscentProblem, StepRule, above_cap, projection
from teleport._null_space.frozen_steps import FrozenSteps
from teleport._null_space.held_out import DriftMetric, HeldOutInputs
from teleport._null_space.layer_statistics import LayerStatistics, NullSpaces
from teleport._null_space.settings import NullSpaceSettings
from teleport._processes.ranks import Processes
from teleport._processes.shards import Shards
from teleport._tracing.layer_tracer import LayerTracer, TracedLayers, trace_layers
from teleport._tracing.layers_of_ranks import layers_of_ranks
from teleport._tracing.layers_of_shards import layers_of_shards
from teleport._tracing.preconditions import check_tensors

FAR_ABOVE = 1.25
"""A norm so many times the cap makes one below the cap unlikely on the next batch."""


def run_null_space_event(
    method: str,
    settings: NullSpaceSettings,
    step_rule: StepRule,
    model: nn.Module,
    batches: Iterable[Any],
    loss_fn: LossFn,
    constraint: Iterable[Any] | None,
    callback: Callback | None,
    keep_modes: bool,
    held_out: Iterable[Any] | None = None,
    process_group: Processes = None,
    on_shards: bool = False,
) -> TeleportReport:
    """One event: apply ``step_rule`` on each batch, in the null space of the layer inputs.

    Args:
        method: its name in the report.
        settings: of the method.
        step_rule: moves the parameters on one batch.
        model: changed in place.
        batches: what ``loss_fn`` takes, one ascent problem each.
        loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
        constraint: batches whose layer inputs define the null spaces; ``None`` for each batch's own.
        callback: called per batch and per step.
        keep_modes: whether the loss is evaluated in the modes of the modules.
        held_out: batches that give the step rule a metric of moves; ``None`` for no metric.
        process_group: the processes that move the model together.
        on_shards: whether the step rule moves the rows of parameters that a rank holds.

    Raises:
        ValueError: no batches, a loss that is no scalar or depends on no trainable parameter, or no such parameter.
    """
    if constraint is not None:
        check_batches("constraint", constraint)
        constraint = list(constraint)
        check_tensors(constraint, "constraint batch")
    if constraint == []:
        raise ValueError("a teleport needs at least one batch")

    def work(event: Event) -> tuple[list[BatchReport], list[NullSpaceLayerReport]]:
        event.group.agree(number_of_constraint_batches=None if constraint is None else len(constraint))
        return _NullSpaceEvent(settings, step_rule, event, constraint, held_out).run()

    relative = settings.relative_cap is not None
    return run_event(
        method,
        model,
        batches,
        loss_fn,
        work,
        callback,
        gradients=relative,
        keep_modes=keep_modes,
        in_turn=True,
        process_group=process_group,
        memory=settings.memory,
        divisible="" if not settings.divisible else "recorded" if settings.frozen_forward else "whole",
        on_shards=on_shards and settings.divisible,
    )


class _NullSpaceEvent:
    """The state of one event, from batch to batch."""

    def __init__(
        self,
        settings: NullSpaceSettings,
        step_rule: StepRule,
        event: Event,
        constraint: list[Any] | None,
        held_out: Iterable[Any] | None,
    ) -> None:
        self.settings = settings
        self.event = event
        self.constraint = constraint
        self.statistics = LayerStatistics(event.start, event.group)
        once = settings.frozen_forward and event.plan.whole and event.plan.recorded
        freeze = once and settings.threshold == 1 and constraint is None and event.group.alone
        self.frozen = FrozenSteps(step_rule, settings.rule, self.statistics, freeze)
        self.null_spaces: NullSpaces | None = None  # of the current batch, or of the constraint
        self.constraint_loss: float | None = None  # at the current parameters
        self.shape = Shape()
        self.held_out = (
            None if held_out is None else HeldOutInputs(event.evaluate, held_out, event.named, event.draw, event.group)
        )

    def run(self) -> tuple[list[BatchReport], list[NullSpaceLayerReport]]:
        """Teleport on each batch in turn."""
        event, reports = self.event, list[BatchReport]()
        caps = Caps(self.settings.cap, self.settings.relative_cap, event)
        for number, batch in enumerate(event.batches):
            monitor = event.monitor.on(number, self.settings.steps)
            reports.append(
                self._out_of_room(batch, caps, reports, monitor) or self._on_batch(number, batch, caps, monitor)
            )
            if event.monitor.stopped:
                break
        return reports, self.statistics.close(reports)

    def _on_batch(self, number: int, batch: Any, caps: Caps, monitor: StepMonitor) -> BatchReport:
        """Teleport on one batch; its autograd graph is freed afterwards."""
        settings, event = self.settings, self.event
        lasting = self.constraint is not None and settings.threshold == 1  # then no input of the constraint changes
        versions = self._versions()
        recorder = self._recorder()
        start, graph = self._start(batch, recorder)
        if start is not None:
            if number == 0:
                caps.know_first(start)
            full = out_of_room(start.norm, caps.over(event.trainable), settings.rule)
            if full and math.isfinite(start.norm):
                self._note(recorder)
                return above_cap(start, monitor)  # saves the decomposition of its inputs
        if self.null_spaces is None or not lasting:
            self.null_spaces = self.statistics.open(self._traced(batch, recorder), settings.threshold)
            if not event.plan.whole:
                hand_back()
        self.statistics.next_batch()
        if self._versions() != versions:  # the model wrote into its parameters in the forward pass
            start = graph = None
        return self._teleport(number, batch, self.null_spaces, caps, start, graph, monitor)

    def _out_of_room(
        self, batch: Any, caps: Caps, reports: list[BatchReport], monitor: StepMonitor
    ) -> BatchReport | None:
        """The report of a batch that has no room below the cap, found without an autograd graph; ``None`` if it has.

        Only tested after a batch that had none itself: the next one is then most likely to have none either. A start
        that is recorded for a frozen forward pass has no such graph, so that it pays after a batch far above the cap.
        """
        last = reports[-1] if reports else None
        if last is None or last.steps or last.stopped == Stopped.NOT_FINITE or self.settings.objective_params != "all":
            return None
        cap, rule = caps.over(self.event.trainable), self.settings.rule
        if not out_of_room(last.gradient_norm_after / (FAR_ABOVE if self.frozen.enabled else 1), cap, rule):
            return None
        start = self.event.batch_loss(batch, self.event.trainable).point(False)
        return above_cap(start, monitor) if math.isfinite(start.norm) and out_of_room(start.norm, cap, rule) else None

    def _note(self, recorder: LayerTracer | None) -> None:
        """Enter the layers of a batch whose inputs are not decomposed in the report."""
        if recorder is not None:
            recorder.recorded.clear()
            self.statistics.note(self._held(recorder.result()))

    def _recorder(self) -> LayerTracer | None:
        """Traces the layer inputs in the evaluation of the start, if each batch is its own constraint."""
        if self.constraint is not None or self.settings.objective_params != "all":
            return None
        exact = self.settings.threshold == 1
        deferred = self.event.plan.whole  # else inputs of all layers would be held
        return LayerTracer(self.event.traced, exact, deferred=deferred, rank_only=exact)

    def _traced(self, batch: Any, recorder: LayerTracer | None) -> TracedLayers:
        """The traced layers of the constraint, from a separate evaluation if ``recorder`` could not trace them all."""
        if recorder is not None and not recorder.overwritten:
            recorder.end_batch()
            return self._held(layers_of_ranks(self.event.group, recorder.result()))
        exact = self.settings.threshold == 1
        shared = self.constraint is None and exact
        traced = trace_layers(self.event.evaluate, self.constraint or [batch], self.event.traced, shared, exact)
        return self._held(layers_of_ranks(self.event.group, traced))

    def _held(self, traced: TracedLayers) -> TracedLayers:
        """The traced layers in what this rank holds of the parameters."""
        group = self.event.group
        return layers_of_shards(group, traced) if isinstance(group, Shards) else traced

    def _start(self, batch: Any, recorder: LayerTracer | None) -> tuple[Point | None, GraphRecorder | None]:
        """The start on ``batch`` and its recorded graph, if the gradient norm is over all parameters."""
        if self.settings.objective_params != "all":
            return None, None
        loss = self.event.batch_loss(batch, self.event.trainable)
        if recorder is not None:
            traced = partial(recorder.trace, loss.evaluate)
            known = loss.known, loss.lean, loss.product
            loss = BatchLoss(traced, loss.parameters, loss.names, batch, loss.group, *known)
        if not self.frozen.enabled:
            return loss.point(self.settings.differentiable), None
        return self.frozen.start(loss, lambda: recorder is not None and recorder.paused)

    def _versions(self) -> list[int]:
        return [parameter._version for parameter in self.event.trainable]

    def _teleport(
        self,
        number: int,
        batch: Any,
        null_spaces: NullSpaces,
        caps: Caps,
        start: Point | None,
        graph: GraphRecorder | None,
        monitor: StepMonitor,
    ) -> BatchReport:
        """Pose and solve the ascent problem of one batch, and roll it back if the guard is violated."""
        settings = self.settings
        parameters = list(dict.fromkeys(block.parameter for layer, _ in null_spaces for block in layer.blocks))
        if parameters:
            self.event.about_to_move(number)
        self.event.moved |= set(parameters)
        over = parameters if settings.objective_params == "moved" and parameters else self.event.trainable
        loss = self.event.batch_loss(batch, over)
        if self.constraint and self._guarded and self.constraint_loss is None:
            self.constraint_loss = self.event.mean_loss(self.constraint)
        if start is None and self.frozen.enabled and parameters:
            start, graph = self.frozen.start(loss)
        project = projection(null_spaces, parameters, self.statistics)
        project_drawn = projection(null_spaces, parameters, self.statistics, ())
        metric = None if self.held_out is None else DriftMetric(null_spaces, parameters, self.held_out)
        cap = caps.over(over)
        problem = AscentProblem(
            batch=number,
            loss=loss,
            parameters=parameters,
            cap=cap,
            start=start,
            project=project,
            project_drawn=project_drawn,
            monitor=monitor,
            shape=self.shape,
            metric=metric,
        )
        snapshot = Snapshot(parameters if self._guarded or graph is not None else [], self.event.start)
        ascent = self.frozen.ascend(problem, graph, null_spaces, snapshot)
        report = ascent.report()
        if not null_spaces and report.stopped not in (Stopped.CALLBACK, Stopped.NOT_FINITE):
            report.stopped = Stopped.NOTHING_MOVES
        if self._guarded:
            losses = None
            if self.constraint and self.constraint_loss is not None:  # the guard is on the constraint's loss
                losses = self.constraint_loss, self.event.mean_loss(self.constraint)
            roll_back_if_violated(report, settings.tolerance, snapshot, losses, self.event.group)
            if losses and report.accepted:
                self.constraint_loss = losses[1]
        return report

    @property
    def _guarded(self) -> bool:
        return self.settings.guard == "transaction"
