"""A random move in the null space of the layer inputs: the control for :class:`teleport.NullSpace`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport._arguments import check_finite, check_generator, check_limits, check_positive, check_threshold, seeded
from teleport._engine.ascent import Ascent
from teleport._engine.capped_step import Line, out_of_room
from teleport._engine.contract import LossFn
from teleport._engine.finiteness import not_finite_at
from teleport._engine.progress import Callback
from teleport._engine.report import StepRecord, TeleportReport
from teleport._engine.statuses import Stopped
from teleport._null_space.ascent_problem import AscentProblem
from teleport._null_space.driver import run_null_space_event
from teleport._null_space.random_directions import RandomDirections, move_along
from teleport._null_space.settings import NullSpaceSettings
from teleport._processes.ranks import Processes
from teleport._segments.plan import check_memory
from teleport._spaces.norms import joint_norm


@dataclass(frozen=True)
class RandomNullSpace:
    """Move by a given distance in a random direction of the null space of the layer inputs.

    For each batch: draw a direction for the weights that :class:`teleport.NullSpace` may move, project it as that
    method projects its gradient, and move by ``length`` times the norm of these weights, or less if the gradient norm
    reaches the cap before. The direction is uniform on the unit sphere of the null space of all layers together. A gain
    of NullSpace over this method is due to its objective, not to moving in the null space.

    The random numbers depend on ``seed``, the number of the call (the event), the number of the batch in it and the
    place of a parameter among the trainable ones, and on no computed value: machines, thread counts and precisions
    draw the same direction before its projection. A ``generator`` per event, as of the suite, makes a resumed run equal
    to an uninterrupted one. torch's global random state is not used.

    Args:
        length: of the move on a batch, relative to the norm of all weights that may move.
        seed: of ``generator``, the common source of successive calls.
        threshold: see :class:`teleport.NullSpace`, also for the arguments below.
        cap: the largest gradient norm; a move that would pass it is shortened to end within 2 % below it.
        relative_cap: a cap as a factor on the mean gradient norm before the event; see :class:`teleport.Teleporter`.
        guard: ``"transaction"`` or ``"none"``.
        tolerance: of the guard, relative to ``max(1, |loss|)``.
        memory: the budget of an event, in bytes or as text such as ``"2GB"``; see :class:`teleport.Teleporter`.

    Attributes:
        generator: the method's own source; each call draws one number from it.

    Raises:
        ValueError: an argument outside its range.
    """

    length: float = 0.1
    seed: int = 0
    threshold: float = 1.0
    cap: float | None = None
    relative_cap: float | None = 2.0
    guard: Literal["transaction", "none"] = "transaction"
    tolerance: float = 1e-3
    memory: int | str | None = None
    generator: torch.Generator = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_positive(length=self.length)
        check_finite(length=self.length)
        check_memory(self.memory)
        check_threshold(self.threshold)
        check_limits(self.cap, self.relative_cap, self.guard, self.tolerance)
        object.__setattr__(self, "generator", seeded(self.seed))

    def __call__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        loss_fn: LossFn,
        constraint: Iterable[Any] | None = None,
        *,
        generator: torch.Generator | None = None,
        callback: Callback | None = None,
        keep_modes: bool = False,
        process_group: Processes = None,
    ) -> TeleportReport:
        """Teleport ``model`` in place. Arguments, errors and the state that is restored: :class:`teleport.NullSpace`.

        Args:
            model: any module; its trainable parameters may move.
            batches: what ``loss_fn`` takes; one move per batch.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
            constraint: batches whose layer inputs are protected.
            generator: the source of the random numbers, on any device, in place of the method's own. Each call draws
                one number from it.
            callback: called per batch and per step, see ``teleport.Callback``; a batch has one step.
            keep_modes: see :class:`teleport.Teleporter`.
            process_group: see :class:`teleport.Teleporter`.
        """
        check_generator(generator)
        settings = NullSpaceSettings(
            self.threshold,
            self.cap,
            self.relative_cap,
            rule="cap",
            guard=self.guard,
            tolerance=self.tolerance,
            objective_params="all",
            differentiable=False,
            steps=1,
            memory=self.memory,
        )

        directions = RandomDirections(generator or self.generator)

        def step_rule(problem: AscentProblem) -> Ascent:
            return self._ascend(problem, directions)

        return run_null_space_event(
            "random",
            settings,
            step_rule,
            model,
            batches,
            loss_fn,
            constraint,
            callback,
            keep_modes,
            process_group=process_group,
            on_shards=True,
        )

    def _ascend(self, problem: AscentProblem, directions: RandomDirections) -> Ascent:
        """One step along a random direction."""
        start = problem.start or problem.loss.point(False)
        trace = [StepRecord(0, float(start.loss), start.norm)]
        if problem.monitor(trace[0]):
            return Ascent(start, start, 0, Stopped.CALLBACK, trace)
        if reason := not_finite_at(problem.loss, start, problem.parameters):
            return Ascent.refused(start, reason)
        if out_of_room(start.norm, problem.cap, "cap"):
            return Ascent(start, start, 0, Stopped.ABOVE_CAP, trace)
        if not problem.parameters:
            return Ascent(start, start, 0, Stopped.NOTHING_MOVES, trace)
        start.forget_if(problem.loss.lean)
        drawn = problem.project(directions.draw(problem))
        drawn_norm, weight_norm = problem.loss.group.lengths(joint_norm(drawn), joint_norm(_values(problem.parameters)))
        if drawn_norm == 0:
            return Ascent(start, start, 0, Stopped.NO_ASCENT, trace)
        whole = self.length * (weight_norm or 1.0) / drawn_norm
        return move_along(problem, start, Line(problem.parameters, drawn, problem.loss.known), whole)


def _values(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [parameter.detach() for parameter in parameters]
