"""Runs one teleport event of any method: evaluates the loss, runs the method, restores on an error, and reports."""

from __future__ import annotations

import dataclasses
import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from torch import Tensor, nn

from teleport._allocator import hand_back
from teleport._arguments import check_call
from teleport._engine.contract import LossFn, Monitor
from teleport._engine.event import Event, mean_of
from teleport._engine.layer_reports import LayerReport, fill_sizes
from teleport._engine.loss_call import check_signature, explained, scalar
from teleport._engine.on_shards import ShardedModel
from teleport._engine.progress import Callback, closing_line
from teleport._engine.replicas import as_one_replica
from teleport._engine.report import BatchReport, TeleportReport
from teleport._engine.sharded import with_whole_parameters
from teleport._engine.transaction import Snapshot, all_or_nothing
from teleport._errors import UnsupportedModel
from teleport._processes.group import Group
from teleport._processes.ranks import Processes, group_of
from teleport._segments.choice import choose
from teleport._segments.plan import WHOLE, Plan, bytes_of
from teleport._segments.recomputed import NotRepeatable
from teleport._tangents.dual import NoTangent
from teleport._tracing.caches import clear_caches
from teleport._tracing.differentiability import check_graph, check_reach
from teleport._tracing.preconditions import check_model, check_tensors, quantized_modules
from teleport._tracing.undisturbed import ModelState

log = logging.getLogger(__name__)

QUANTIZED = "its weights are quantized, so they are no parameters and have no gradient"
"""The reason of a quantized module in a model that has other parameters."""

Report = TypeVar("Report", bound=TeleportReport)

ONCE_DIFFERENTIABLE = re.compile(
    r"derivative for \S+ is not implemented|differentiate twice a function that was marked.*"
)
"""Messages of torch for an operation without a second derivative."""

Work = Callable[[Event], tuple[list[BatchReport], Sequence[LayerReport]]]
"""Moves the parameters of an event; returns the reports of the batches and of the layers."""


def run_event(
    method: str,
    model: nn.Module,
    batches: Iterable[Any],
    loss_fn: LossFn,
    work: Work,
    callback: Callback | None = None,
    report_type: type[Report] = TeleportReport,  # type: ignore[assignment]
    *,
    gradients: bool = False,
    keep_modes: bool = False,
    in_turn: bool = False,
    process_group: Processes | Group = None,
    memory: int | str | None = None,
    divisible: Literal["", "whole", "recorded"] = "",
    on_shards: bool = False,
) -> Report:
    """Run ``work``, which moves the parameters of ``model`` in place; nothing else of the model changes.

    Args:
        method: the name of the method.
        model: any module; its parameters are restored after an exception.
        batches: arguments for ``loss_fn``.
        loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
        work: moves the parameters; returns the reports of the batches and of the layers. The first batch's report has
            the loss before any move, the last one's the loss at the final parameters. Batches that were not begun
            when the callback ended the event have no report.
        callback: the caller's; ``work`` calls it through ``event.monitor``.
        report_type: the class of the report.
        gradients: whether the gradient norms of all batches before the event are needed, for a relative cap.
        keep_modes: whether the loss is evaluated in the modes of the modules instead of evaluation mode.
        in_turn: whether ``work`` moves on one batch after the other, calls ``event.about_to_move`` before each move,
            and reports each batch's losses at the parameters before and after its own steps.
        process_group: the processes that move the model together, see :class:`teleport.Teleporter`.
        memory: the budget of the event, see :class:`teleport.Teleporter`.
        divisible: ``"whole"`` if ``work`` takes gradients and products of the Hessian alone, so that the loss may be
            evaluated in segments; ``"recorded"`` if it records whole evaluations where the plan lets it.
        on_shards: whether ``work`` moves the rows of parameters that a rank holds; else sharded ones are made whole.

    Raises:
        TypeError: an argument is of another type, such as swapped ones.
        ValueError: no batches, a loss that is no scalar or depends on no trainable parameter, or no such parameter.
        UnsupportedModel: ``work`` differentiates twice, and an operation of the model has no second derivative.
    """
    start = time.perf_counter()
    check_call(model, batches, loss_fn, callback, keep_modes)
    group, budget = group_of(process_group, model), bytes_of(memory)
    shards = ShardedModel.of(group, model) if on_shards else None
    group = group if shards is None else shards.group
    if budget is not None and not group.alone:
        raise ValueError("memory is a budget of one process; leave it out where several move a model together")
    run = _Run(
        start=start,
        method=method,
        model=model,
        loss_fn=loss_fn,
        work=work,
        callback=callback,
        report_type=report_type,
        gradients=gradients,
        keep_modes=keep_modes,
        in_turn=in_turn,
        memory=memory,
        divisible=divisible,
        group=group,
        budget=budget,
        shards=shards,
    )
    checked = partial(run.on, batches)
    if shards is not None:
        return group.together(partial(shards.during, checked))
    return group.together(partial(with_whole_parameters, group, model, checked))


@dataclass(frozen=True)
class _Run(Generic[Report]):
    """One call of :func:`run_event`: its arguments, and the group, the budget and the shards that follow from them."""

    start: float
    method: str
    model: nn.Module
    loss_fn: LossFn
    work: Work
    callback: Callback | None
    report_type: type[Report]
    gradients: bool
    keep_modes: bool
    in_turn: bool
    memory: int | str | None
    divisible: str
    group: Group
    budget: int | None
    shards: ShardedModel | None
    custom_operations: list[bool] = field(default_factory=list)

    def on(self, batches: Iterable[Any]) -> Report:
        """The event on these batches, by tangents or in segments if the plan says so; whole if neither can be."""
        given = list(batches)
        if not given:
            raise ValueError("a teleport needs at least one batch")
        check_model(self.model)
        check_signature(self.loss_fn)
        check_tensors(given)
        self.group.agree(method=self.method, number_of_batches=len(given), keep_modes=self.keep_modes)
        try:
            try:
                return self._undoable(given, tangents=True)
            except NoTangent as reason:
                log.info("without tangents: %s", reason)
                return self._undoable(given)
        except NotRepeatable as reason:  # later than in the first evaluation
            if not self.group.alone:
                raise
            if self.budget is not None:
                message = f"memory={self.memory!r} needs parts of the event to be repeated, and {reason}"
                raise ValueError(message) from reason
            log.info("evaluated whole: %s", reason)
            return self._undoable(given, whole=True)

    def _undoable(self, batches: list[Any], tangents: bool = False, whole: bool = False) -> Report:
        """The event, undone after an exception, with replicas that are equal before and after it."""
        one = closing_line(self.callback, partial(self._move, batches=batches, tangents=tangents, whole=whole))
        return as_one_replica(
            self.group, self.model, partial(all_or_nothing, self.model, one, self.keep_modes, self.group)
        )

    def _move(self, before: Snapshot, state: ModelState, batches: list[Any], tangents: bool, whole: bool) -> Report:
        """Let ``work`` move the parameters, restore what else changed, and report."""
        event = self._event(state, batches, tangents, whole)
        event.start = before.values
        try:
            reports, layers, losses = _measured(event, self.work, self.gradients, self.in_turn)
            if any(self.custom_operations):
                check_reach(lambda: event.evaluate(batches[0]), event.named.items())
        except RuntimeError as error:
            if operation := ONCE_DIFFERENTIABLE.search(str(error)):
                message = f"{self.method} differentiates twice, and torch cannot: {operation[0]}"
                raise UnsupportedModel(message) from error
            raise
        before.restore_all_but(event.moved)
        if event.ended is not None:
            event.ended.restore()
        return self._report(event, reports, layers, losses)

    def _event(self, state: ModelState, batches: list[Any], tangents: bool, whole: bool) -> Event:
        """The state of the event, with the plan by which its loss is evaluated."""
        planned = _evaluation(self.model, self.loss_fn, state, self.custom_operations, self.shards)
        clear_caches(self.model, state, lambda: [planned(WHOLE, batches[0])])
        plan = WHOLE
        if self.shards is not None:
            plan = self.shards.plan(planned, batches[0], self.custom_operations)
        elif self.divisible and not whole:
            given = self.group, self.divisible == "recorded", self.custom_operations, tangents
            plan = choose(self.model, batches, planned, self.budget, *given)
            if not plan.whole:
                hand_back()
        monitor = Monitor(self.method, len(batches), self.callback, self.group)
        traced = None if self.shards is None else self.shards.whole
        evaluations = [partial(planned, dataclasses.replace(plan, differentiated=each)) for each in (True, False)]
        evaluate, once = evaluations if self.shards is not None else (evaluations[0], None)
        return Event(self.model, batches, evaluate, state.draw, monitor, self.group, plan, traced, once)

    def _report(
        self,
        event: Event,
        reports: list[BatchReport],
        layers: Sequence[LayerReport],
        losses: tuple[float, float],
    ) -> Report:
        quantized = [LayerReport(*each, 0, reason=QUANTIZED) for each in quantized_modules(self.model).items()]
        layers = [*layers, *quantized]
        fill_sizes(layers, event.traced)
        seconds, memory = time.perf_counter() - self.start, event.plan.chosen
        numbers = (*losses, *_mean_norms(reports))
        report = self.report_type(self.method, *numbers, batches=reports, layers=layers, seconds=seconds, memory=memory)
        if report.no_op:
            report.gradient_norm_after = report.gradient_norm_before  # evaluated twice, it may differ by rounding
            log.info("the teleport moved nothing: %s", "; ".join(report.reasons().splitlines()))
        return report


def _measured(
    event: Event,
    work: Work,
    gradients: bool,
    in_turn: bool,
) -> tuple[list[BatchReport], Sequence[LayerReport], tuple[float, float]]:
    """The result of ``work``, with the mean loss over all batches before and after it."""
    written = any(getattr(module, "max_norm", None) is not None for module in event.model.modules())
    in_turn = in_turn and not written  # else evaluations write into the weights
    if gradients or not in_turn:
        event.measure_from(1, gradients)
    reports, layers = work(event)
    if written:
        event.ended = Snapshot(event.moved)
    moved = [number for number, report in enumerate(reports) if report.steps and report.accepted]
    if not moved:
        event.about_to_move(len(reports) - 1)  # the callback may have ended the event before it came to all batches
    numbers = range(len(event.batches))
    before = [float(event.losses[each]) if each in event.losses else reports[each].loss_before for each in numbers]
    if not moved:
        return reports, layers, (mean_of(before), mean_of(before))
    known = {len(reports) - 1: reports[-1].loss_after if reports[-1].accepted else reports[-1].loss_before}
    if in_turn:  # the other batches since the last move
        known |= {each: reports[each].loss_before for each in range(moved[-1] + 1, len(reports))}
        known[moved[-1]] = reports[moved[-1]].loss_after
    after = [known[each] if each in known else float(event.loss(event.batches[each])) for each in numbers]
    return reports, layers, (mean_of(before), mean_of(after))


def _evaluation(
    model: nn.Module,
    loss_fn: LossFn,
    state: ModelState,
    custom_operations: list[bool],
    shards: ShardedModel | None,
) -> Callable[[Plan, Any], Tensor]:
    """The loss of a batch by a plan as a scalar, checked, with the same random numbers each time.

    The first evaluation, which must be whole, appends to ``custom_operations`` whether its graph has any.
    """

    def evaluate(plan: Plan, batch: Any) -> Tensor:
        by_plan = plan.loss if shards is None else partial(shards.loss, plan)
        try:
            loss = scalar(state.evaluate(lambda: by_plan(loss_fn, model, batch)))
        except (NotRepeatable, NoTangent):
            raise
        except Exception as error:
            first = not custom_operations and shards is None  # no rank evaluates shards alone
            clearer = explained(error, loss_fn, model, batch, state, first=first)
            if clearer is error:
                raise
            raise clearer from error
        if not custom_operations:
            custom_operations.append(check_graph(loss, twice=False))
        return loss

    return evaluate


def _mean_norms(reports: Sequence[BatchReport]) -> tuple[float, float]:
    """The mean gradient norm of the batches before and after their own steps; the former twice if rolled back."""
    before = [each.gradient_norm_before for each in reports]
    after = [each.gradient_norm_after if each.accepted else each.gradient_norm_before for each in reports]
    return sum(before) / len(reports), sum(after) / len(reports)
