"""One event that multiplies parameters by factors: find the quiver, choose the factors, apply, check, report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.basis_event import BasisEvent
from teleport._change_of_basis.common_move import (
    broken_outputs,
    half_tolerance,
    loss_and_norm,
    report_of,
    tell_of_step,
)
from teleport._change_of_basis.finding import quiver_for
from teleport._change_of_basis.report import ChangeOfBasisReport
from teleport._engine.contract import LossFn, Monitor
from teleport._engine.event import Event
from teleport._engine.finiteness import not_finite_at_any, not_finite_outputs
from teleport._engine.layer_reports import LayerReport
from teleport._engine.loss_call import with_devices_told
from teleport._engine.on_shards import GatheredEvaluation, ShardedModel
from teleport._engine.progress import Callback, closing_line
from teleport._engine.replicas import as_one_replica
from teleport._engine.report import BatchReport
from teleport._engine.run_event import run_event
from teleport._engine.sharded import with_whole_parameters
from teleport._engine.statuses import Stopped
from teleport._engine.transaction import Snapshot, all_or_nothing, not_accepted, violation
from teleport._errors import UnsupportedModel
from teleport._processes.group import Group
from teleport._processes.shards import Shards
from teleport._quiver.quiver import Quiver
from teleport._tracing.caches import clear_caches
from teleport._tracing.outputs import Forward, call_model, difference, outputs_of
from teleport._tracing.preconditions import check_model, check_tensors
from teleport._tracing.replicas import is_sharded
from teleport._tracing.undisturbed import ModelState

_CHECKPOINTED = (
    'activations="teleport" does not reach activations that are computed again in the backward pass, and this model '
    'uses activation checkpointing; take "keep"'
)

Report = TypeVar("Report", bound=ChangeOfBasisReport)

_Change = Callable[[Sequence[Callable[[], Any]], list[Any]], set[nn.Parameter]]
"""Finds and chooses a change of basis for what evaluations of the batches show; tells which parameters it moves."""


@dataclass(eq=False)
class FactorMove(Generic[Report]):
    """One event of a method that multiplies parameters by factors.

    Attributes:
        name: of the method, for the report.
        report_type: of its reports.
        event: around the given model.
        choose: the change of basis, of the quiver that was found, the first batch, and the group that decides together.
        activations: ``"keep"`` or ``"teleport"``.
        guard, tolerance: as of ``ChangeOfBasis``.
        callback, keep_modes: of the caller.
        group: of processes that move the model together.
        on_shards: whether ``choose`` takes a group that holds rows of the parameters; else sharded ones are made whole.
    """

    name: str
    report_type: type[Report]
    event: BasisEvent
    choose: Callable[[Quiver, Any, Group], BasisChange]
    activations: str
    guard: Literal["transaction", "none"]
    tolerance: float
    callback: Callback | None
    keep_modes: bool
    group: Group
    on_shards: bool

    def run(self, model: nn.Module, batches: Iterable[Any], loss_fn: LossFn | None, forward: Forward | None) -> Report:
        """Make the event; arguments and errors as of a call of ``ChangeOfBasis``."""
        event, group = self.event, self.group
        shards = ShardedModel.of(group, model) if self.on_shards else None

        def change(evaluations: Sequence[Callable[[], Any]], given: list[Any]) -> set[nn.Parameter]:
            runs = evaluations[0], event.modes, evaluations[1:], given, event.whole, event.group
            return event.prepare(self.choose(quiver_for(self.activations, event.model, *runs), given[0], event.group))

        def moved() -> Report:
            report: Report
            check_model(model, sharded=shards is not None)
            try:
                if loss_fn is None:
                    handed = event.handing(forward or call_model)
                    report = self._by_outputs_together(change, list(batches), handed, shards)
                else:
                    report = run_event(
                        self.name,
                        event.model,
                        batches,
                        event.handing(loss_fn),
                        lambda losses: self._by_loss(change, losses),
                        self.callback,
                        self.report_type,
                        keep_modes=self.keep_modes,
                        process_group=group,
                        on_shards=shards is not None,
                    )
                report.model, report.change, report.group = event.result, event.change, event.factors
                return report
            except BaseException as error:
                event.put_back()  # also after the move: without its report the teleported form would be lost
                if isinstance(error, CheckpointError) and self.activations == "teleport":
                    raise UnsupportedModel(_CHECKPOINTED) from error
                raise

        try:
            return moved() if shards is not None else with_whole_parameters(group, model, moved)
        except BaseException:  # an interrupt after the move, before the report is the caller's
            if shards is not None or not any(map(is_sharded, model.parameters())):  # gathered ones are written last
                event.put_back()
            raise

    def _by_loss(self, change: _Change, losses: Event) -> tuple[list[BatchReport], list[LayerReport]]:
        """Change the basis, and check the function by the losses of the batches."""
        event = self.event
        event.group = losses.group
        event.whole = losses.traced if isinstance(losses.group, Shards) else None  # else those of the unwrapped model
        losses.moved |= change([partial(losses.evaluate_once, batch) for batch in losses.batches], losses.batches)
        losses.names = event.names
        objectives = [losses.batch_loss(batch, losses.trainable) for batch in losses.batches]
        points = [objective.point(differentiable=False) for objective in objectives]
        before = [(float(point.loss), point.norm) for point in points]
        stopped = tell_of_step(losses.monitor, 0, before)
        refused = not_finite_at_any(objectives, points, event.moved.parameters)
        if any(refused):
            event.undo()
        acted = event.act(stopped)
        after = [loss_and_norm(objective) for objective in objectives] if acted else before
        stopped = stopped or (acted and tell_of_step(losses.monitor, 1, after))
        reports = [report_of(acted, stopped, *old, *new) for old, new in zip(before, after, strict=True)]
        if not not_accepted(reports, refused, Stopped.NOT_FINITE) and self.guard == "transaction":
            tolerance = half_tolerance(self.tolerance, losses.named.values())
            event.judge(
                reports,
                [
                    losses.group.common(violation(old[0], new[0], new[1], tolerance, event.moved))
                    for old, new in zip(before, after, strict=True)
                ],
            )
        return reports, event.layers()

    def _by_outputs_together(
        self, change: _Change, batches: list[Any], forward: Forward, shards: ShardedModel | None
    ) -> Report:
        """As :meth:`_by_outputs`, on the shards that the model has, and undone in all processes if one fails."""
        event = self.event
        if shards is None:
            event.group = self.group
            return event.group.together(lambda: self._by_outputs(change, batches, forward))
        event.group, event.whole = shards.group, shards.whole
        gathering = GatheredEvaluation(shards, forward)

        def choose_plan(state: ModelState) -> None:
            gathering.choose(state, event.model, batches[0])

        report: Report = event.group.together(
            partial(shards.during, lambda: self._by_outputs(change, batches, gathering, choose_plan))
        )
        report.memory = gathering.plan.chosen
        return report

    def _by_outputs(
        self,
        change: _Change,
        batches: list[Any],
        forward: Forward,
        first_of_all: Callable[[ModelState], None] = lambda state: None,
    ) -> Report:
        """Change the basis, and check the function by the outputs on the batches."""
        event, group = self.event, self.event.group
        start = time.perf_counter()
        if not batches:
            raise ValueError("a teleport needs at least one batch")
        check_tensors(batches)
        group.agree(number_of_batches=len(batches), keep_modes=self.keep_modes)
        parameters = list(event.model.parameters())

        def moved(before: Snapshot, state: ModelState) -> Report:
            def evaluate(batch: Any) -> Any:
                return state.evaluate(lambda: forward(event.model, batch))

            def outputs(batch: Any) -> list[Tensor]:
                call = partial(outputs_of, event.model, batch, forward)
                return with_devices_told(lambda: state.evaluate(call), event.model, batch)

            first_of_all(state)
            clear_caches(event.model, state, lambda: outputs(batches[0]))
            first = [outputs(batch) for batch in batches]
            moved = change([partial(evaluate, batch) for batch in batches], batches)
            unknown = [(math.nan, math.nan)] * len(batches)
            monitor = Monitor(self.name, len(batches), self.callback, group)
            stopped = tell_of_step(monitor, 0, unknown)
            refused = group.reasons(not_finite_outputs(event.names, moved, batches, first))
            if any(refused):
                event.undo()
            acted = event.act(stopped)
            stopped = stopped or (acted and tell_of_step(monitor, 1, unknown))
            moves = [difference(old, outputs(batch)) for old, batch in zip(first, batches, strict=True)]
            before.restore_all_but(moved)
            reports = [report_of(acted, stopped, math.nan, math.nan, math.nan, math.nan) for _ in batches]
            if not not_accepted(reports, refused, Stopped.NOT_FINITE) and self.guard == "transaction":
                tolerance = half_tolerance(self.tolerance, parameters)
                event.judge(reports, group.reasons([broken_outputs(move, tolerance, event.moved) for move in moves]))
            nan = math.nan
            seconds = time.perf_counter() - start
            report = self.report_type(self.name, nan, nan, nan, nan, reports, event.layers(), seconds)
            report.difference = max(group.gathered(max(moves)))
            return report

        closed = closing_line(self.callback, moved)
        return as_one_replica(group, event.model, partial(all_or_nothing, event.model, closed, self.keep_modes, group))
