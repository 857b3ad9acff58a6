"""Steps with the forward pass frozen, for as long as the frozen gradient norm is the model's.

At the exact null space no layer output changes, so that a step needs the recorded graph of the start alone
(``_frozen_forward``). If the frozen norm is not the model's, at the start or after the steps, the step rule runs the
forward pass at each step, on this batch and on all later ones of the event.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Hashable

from teleport._engine.ascent import Ascent
from teleport._engine.batch_loss import BatchLoss, Point
from teleport._engine.capped_step import out_of_room
from teleport._engine.finiteness import not_finite_at
from teleport._engine.transaction import Snapshot
from teleport._frozen_forward.frozen_forward import FrozenForward, NoSecondDerivative, recorded
from teleport._frozen_forward.recorded_graph import GraphRecorder, Untraceable
from teleport._null_space.ascent_problem import AscentProblem, StepRule, agree, freeze_forward
from teleport._null_space.layer_statistics import LayerStatistics, NullSpaces

log = logging.getLogger(__name__)


class FrozenSteps:
    """The steps of one event, with the forward pass frozen on the batches whose graph was recorded.

    Args:
        step_rule: moves the parameters on one batch.
        rule: of the cap, as of :func:`teleport._engine.ascent.ascend`.
        statistics: of the event's layers.
        enabled: whether the forward pass may be frozen at all.

    Attributes:
        enabled: whether the forward pass of the next batch may be frozen.
    """

    def __init__(self, step_rule: StepRule, rule: str, statistics: LayerStatistics, enabled: bool) -> None:
        self.enabled = enabled
        self._step_rule = step_rule
        self._rule = rule
        self._statistics = statistics
        self._differentiable = False  # whether the recorded gradients need a graph of their own
        self._agreed = set[Hashable]()  # structures of the backward pass: steps with one ended at the model's norm

    def start(self, loss: BatchLoss, aside: Callable[[], bool] = lambda: False) -> tuple[Point, GraphRecorder]:
        """The point at the current parameters, and the recorded graph of it but for operations ``aside``."""
        return recorded(loss, self._differentiable, aside)

    def ascend(
        self, problem: AscentProblem, graph: GraphRecorder | None, null_spaces: NullSpaces, snapshot: Snapshot
    ) -> Ascent:
        """The ascent, with the forward pass frozen if its graph was recorded.

        The last loss is always evaluated, the last gradient norm once per structure of the backward pass.

        Args:
            problem: of the batch.
            graph: as of :meth:`start`.
            null_spaces: of the layers that move.
            snapshot: of the parameters before; they are restored if the frozen forward pass turns out to be wrong.
        """
        start = problem.start
        if graph is None or start is None or not null_spaces or not_finite_at(problem.loss, start, problem.parameters):
            return self._step_rule(problem)
        if out_of_room(start.norm, problem.cap, self._rule):
            return self._step_rule(problem)
        frozen = self._frozen(problem, graph, null_spaces)
        if frozen is None:
            return self._step_rule(dataclasses.replace(problem, start=None))
        ascent = self._step_rule(frozen)
        if not ascent.steps:
            return ascent
        assert isinstance(frozen.loss, FrozenForward)
        if frozen.loss.structure in self._agreed:
            ascent.end.loss = problem.loss.value()
        else:
            end = problem.loss.point(False)
            if not agree(ascent.end, end, problem.parameters):
                self._thaw("its gradient norm after the steps is not the model's")
                snapshot.restore()
                return self._step_rule(dataclasses.replace(problem, start=None))
            self._agreed.add(frozen.loss.structure)
            ascent.end.loss = end.loss
        ascent.trace[-1] = dataclasses.replace(ascent.trace[-1], loss=float(ascent.end.loss))
        return ascent

    def _frozen(self, problem: AscentProblem, graph: GraphRecorder, null_spaces: NullSpaces) -> AscentProblem | None:
        """``problem`` with the forward pass frozen; ``None``, here and later, if its start is not the model's."""
        assert problem.start is not None
        try:
            frozen = freeze_forward(problem, graph, null_spaces, self._statistics)
            if not agree(frozen.start, problem.start, problem.parameters):
                raise Untraceable("its gradient norm at the start is not the model's")
        except Untraceable as reason:
            if isinstance(reason, NoSecondDerivative) and not self._differentiable:
                self._differentiable = True
                start, graph = recorded(problem.loss, True)
                return self._frozen(dataclasses.replace(problem, start=start), graph, null_spaces)
            self._thaw(str(reason))
            return None
        problem.start.forget()
        graph.operations.clear()
        return frozen

    def _thaw(self, reason: str) -> None:
        """Run the forward pass at each step from now on."""
        log.debug("the forward pass is run again at each step: %s", reason)
        self.enabled = False
