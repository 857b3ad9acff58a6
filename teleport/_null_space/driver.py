"""Moves that the layers' inputs do not see: what every method in the null space does around its own walk."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from teleport._engine.ascent import Ascent, BatchLoss, Point, out_of_room
from teleport._engine.caps import Caps
from teleport._engine.contract import Callback, LossFn, StepMonitor
from teleport._engine.event import Event, run_event
from teleport._engine.report import BatchReport, NullSpaceLayerReport, StepRecord, TeleportReport
from teleport._engine.statuses import Stopped
from teleport._engine.transaction import Snapshot, roll_back_if_violated
from teleport._frozen_forward.frozen_forward import recorded
from teleport._frozen_forward.recorded_graph import GraphRecorder, Untraceable
from teleport._null_space.ascent_problem import AscentProblem, StepRule, agree, freeze_forward, projection
from teleport._null_space.layer_statistics import LayerStatistics, Moving
from teleport._tracing.layer_tracer import LayerTracer, TracedLayers, trace_layers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NullSpaceSettings:
    """The settings that methods in the null space share; :class:`teleport.NullSpace` says what they mean.

    ``differentiable`` says whether a walk starts from gradients with a graph, ``held_forward`` whether it looks at the
    gradient norm alone, so that the forward pass need not be run again where nothing that it computes changes.
    """

    threshold: float
    cap: float | None
    relative_cap: float | None
    rule: str
    guard: str
    tolerance: float
    objective_params: str
    differentiable: bool
    steps: int
    held_forward: bool = False


def run_null_space_event(
    method: str,
    moves: NullSpaceSettings,
    step_rule: StepRule,
    model: nn.Module,
    batches: Iterable[Any],
    loss_fn: LossFn,
    constraint: Iterable[Any] | None,
    callback: Callback | None,
) -> TeleportReport:
    """One event: ``step_rule`` on each batch, in the null space of its layers' inputs or of the ``constraint``'s.

    Raises:
        ValueError: no batches, a loss that is no scalar or depends on no trainable parameter, or no such parameter.
    """
    constraint = None if constraint is None else list(constraint)
    if constraint == []:
        raise ValueError("a teleport needs at least one batch")

    def work(event: Event) -> tuple[list[BatchReport], list[NullSpaceLayerReport]]:
        return _NullSpaceEvent(moves, step_rule, event, constraint).run()

    return run_event(method, model, batches, loss_fn, work, callback)


class _NullSpaceEvent:
    """The steps of one event."""

    def __init__(
        self, moves: NullSpaceSettings, step_rule: StepRule, event: Event, constraint: list[Any] | None
    ) -> None:
        self.moves = moves
        self.step_rule = step_rule
        self.event = event
        self.constraint = constraint
        self.statistics = LayerStatistics()
        self.hold = moves.held_forward and moves.threshold == 1 and constraint is None
        self.moving: Moving | None = None  # the layers that may move, once it is known
        self.constraint_loss: float | None = None  # the constraint's, where the parameters stand
        self.checked = False  # whether a direction with the forward pass held was found to be right

    def run(self) -> tuple[list[BatchReport], list[NullSpaceLayerReport]]:
        """Teleport on each batch in turn."""
        event, reports = self.event, list[BatchReport]()
        objectives = [event.objective(batch, event.trainable) for batch in event.batches]
        caps = Caps(self.moves.cap, self.moves.relative_cap, objectives)
        for number, batch in enumerate(event.batches):
            monitor = event.monitor.on(number, self.moves.steps)
            reports.append(
                self._crowded_out(batch, caps, reports, monitor) or self._on_batch(number, batch, caps, monitor)
            )
            if event.monitor.stopped:
                break
        return reports, self.statistics.close(reports)

    def _on_batch(self, number: int, batch: Any, caps: Caps, monitor: StepMonitor) -> BatchReport:
        """Teleport on one batch; of its graph nothing is held afterwards."""
        moves, event = self.moves, self.event
        lasting = self.constraint is not None and moves.threshold == 1  # at the exact null space no input changes
        versions = self._versions()
        recorder = self._recorder()
        here, tape = self._point(batch, recorder)
        full = here is not None and out_of_room(here.norm, caps.over(event.trainable), moves.rule)
        if here is not None and full and self.moving is not None:
            return _stayed(here, monitor)  # before its inputs are decomposed for nothing
        if self.moving is None or not lasting:
            self.moving = self.statistics.open(self._capture(batch, recorder), moves.threshold)
        self.statistics.next_batch()
        if self._versions() != versions:  # a model that writes into its parameters as it runs
            here = tape = None
        return self._teleport(number, batch, self.moving, caps, here, tape, monitor)

    def _crowded_out(
        self, batch: Any, caps: Caps, reports: list[BatchReport], monitor: StepMonitor
    ) -> BatchReport | None:
        """The report of a batch that has no room under the cap, found without a graph; ``None`` where it has some.

        Looked for only after a batch that ended at the cap, where the next one stands there, too, most likely.
        """
        if not reports or self.moves.objective_params != "all":
            return None
        cap, rule = caps.over(self.event.trainable), self.moves.rule
        if not out_of_room(reports[-1].gradient_norm_after, cap, rule):
            return None
        here = self.event.objective(batch, self.event.trainable).point(False)
        return _stayed(here, monitor) if out_of_room(here.norm, cap, rule) else None

    def _recorder(self) -> LayerTracer | None:
        """Watches the evaluation of a batch that its own walk starts from, where it is its own constraint."""
        if self.constraint is not None or self.moves.objective_params != "all":
            return None
        return LayerTracer(self.event.named, self.moves.threshold == 1, deferred=True)

    def _capture(self, batch: Any, recorder: LayerTracer | None) -> TracedLayers:
        """What the constraint showed, of an evaluation of its own where ``recorder`` did not see it all."""
        if recorder is not None and not recorder.overwritten:
            recorder.end_batch()
            return recorder.result()
        shared = self.constraint is None and self.moves.threshold == 1
        return trace_layers(self.event.evaluate, self.constraint or [batch], self.event.named, shared_objective=shared)

    def _point(self, batch: Any, recorder: LayerTracer | None) -> tuple[Point | None, GraphRecorder | None]:
        """The point that a walk on ``batch`` starts from, where the gradient norm is over all parameters."""
        if self.moves.objective_params != "all":
            return None, None
        objective = self.event.objective(batch, self.event.trainable)
        if recorder is not None:
            objective = BatchLoss(partial(recorder.trace, objective.evaluate), objective.parameters)
        if not self.hold:
            return objective.point(self.moves.differentiable), None
        return recorded(objective, aside=lambda: recorder is not None and recorder.paused)

    def _versions(self) -> list[int]:
        return [parameter._version for parameter in self.event.trainable]

    def _teleport(
        self,
        number: int,
        batch: Any,
        moving: Moving,
        caps: Caps,
        start: Point | None,
        tape: GraphRecorder | None,
        monitor: StepMonitor,
    ) -> BatchReport:
        """A walk on the level set of one batch, undone where the guard says so."""
        moves = self.moves
        parameters = list(dict.fromkeys(block.parameter for layer, _ in moving for block in layer.blocks))
        self.event.moved |= set(parameters)
        over = parameters if moves.objective_params == "moved" and parameters else self.event.trainable
        loss = self.event.objective(batch, over)
        snapshot = Snapshot(parameters if self._guarded else [])
        if self.constraint and self._guarded and self.constraint_loss is None:
            self.constraint_loss = self.event.mean_loss(self.constraint)
        if start is None and self.hold and parameters:
            start, tape = recorded(loss)
        project = projection(moving, parameters, self.statistics)
        problem = AscentProblem(number, loss, parameters, caps.over(over), start, project, monitor)
        ascent = self._ascend(problem, tape, moving, batch)
        report = ascent.report()
        if not moving and report.stopped != Stopped.CALLBACK:
            report.stopped = Stopped.NOTHING_MOVES
        if self._guarded:
            losses = None
            if (
                self.constraint and self.constraint_loss is not None
            ):  # it is the constraint's loss that was promised to stay
                losses = self.constraint_loss, self.event.mean_loss(self.constraint)
            roll_back_if_violated(report, moves.tolerance, snapshot, losses)
            if losses and report.accepted:
                self.constraint_loss = losses[1]
        return report

    def _ascend(self, problem: AscentProblem, tape: GraphRecorder | None, moving: Moving, batch: Any) -> Ascent:
        """The walk, with the forward pass held where there is a tape of it; its end is looked at whole."""
        start = problem.start
        if tape is None or start is None or not moving or out_of_room(start.norm, problem.cap, self.moves.rule):
            return self.step_rule(problem)
        held = self._held(problem, tape, moving)
        if held is None:
            return self.step_rule(dataclasses.replace(problem, start=None))
        ascent = self.step_rule(held)
        if ascent.steps:
            ascent.end.loss = self.event.evaluate(batch).detach()
            ascent.trace[-1] = dataclasses.replace(ascent.trace[-1], loss=float(ascent.end.loss))
        return ascent

    def _held(self, problem: AscentProblem, tape: GraphRecorder, moving: Moving) -> AscentProblem | None:
        """``problem`` with the forward pass held; ``None``, and never again, where that is not what running it
        gives."""
        assert problem.start is not None
        try:
            held = freeze_forward(problem, tape, moving, self.statistics)
            if not (self.checked or agree(held, problem)):
                raise Untraceable("with the forward pass held the direction is another")
        except Untraceable as reason:
            log.debug("the forward pass is run again at each step: %s", reason)
            self.hold = False
            return None
        self.checked = True
        problem.start.forget()
        tape.operations.clear()
        return held

    @property
    def _guarded(self) -> bool:
        return self.moves.guard == "transaction"


def _stayed(point: Point, monitor: StepMonitor) -> BatchReport:
    """The report of a batch whose gradient norm is above the cap already."""
    loss, norm = float(point.loss), point.norm
    here = StepRecord(0, loss, norm)
    stopped = Stopped.CALLBACK if monitor(here) else Stopped.ABOVE_CAP
    return BatchReport(loss, loss, norm, norm, steps=0, stopped=stopped, trace=[here])
