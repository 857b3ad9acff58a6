"""One teleport event of any method: evaluates the loss, runs the method, restores on an error, and reports."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from teleport._arguments import check_call
from teleport._engine.batch_loss import BatchLoss, Point
from teleport._engine.contract import LossFn, Monitor
from teleport._engine.loss_call import check_signature, explained, scalar
from teleport._engine.on_shards import ShardedModel
from teleport._engine.progress import Callback, closing_line
from teleport._engine.replicas import as_one_replica
from teleport._engine.report import BatchReport, LayerReport, TeleportReport, fill_sizes
from teleport._engine.sharded import with_whole_parameters
from teleport._engine.transaction import Snapshot, all_or_nothing
from teleport._errors import UnsupportedModel
from teleport._processes.group import Group
from teleport._processes.ranks import Processes, group_of
from teleport._segments.allocator import hand_back
from teleport._segments.choice import choose
from teleport._segments.plan import WHOLE, Plan, bytes_of
from teleport._segments.recomputed import NotRepeatable
from teleport._spaces.norms import half_squared_norm
from teleport._tracing.caches import clear_caches
from teleport._tracing.differentiability import check_graph, check_reach
from teleport._tracing.preconditions import check_model, check_tensors, no_trainable_parameter, quantized_modules
from teleport._tracing.undisturbed import ModelState

log = logging.getLogger(__name__)

QUANTIZED = "its weights are quantized, so they are no parameters and have no gradient"
"""The reason of a quantized module in a model that has other parameters."""

Report = TypeVar("Report", bound=TeleportReport)

ONCE_DIFFERENTIABLE = re.compile(
    r"derivative for \S+ is not implemented|differentiate twice a function that was marked.*"
)
"""Messages of torch for an operation without a second derivative."""


Halves = dict[nn.Parameter, float]
"""``1/2 |g|^2`` of each parameter's gradient g on one batch."""


class Event:
    """The state of an event that a method works with.

    Attributes:
        model: in evaluation mode.
        batches: of the event, at least one.
        evaluate: the loss of a batch of this process, a scalar with a graph, at the current parameters; with the same
            random numbers each time. Tracers watch it. Numbers come from :meth:`loss` and :meth:`batch_loss`.
        draw: the result of the caller's code that makes a batch; its random numbers go on from call to call.
        named: all parameters by name; ``names``: the reverse; ``trainable``: those that require a gradient.
        moved: parameters that the method moves. Changes of others, by evaluations of the loss, are undone.
        monitor: of the steps, for the callback.
        group: of processes that move the model together.
        plan: how ``evaluate`` computes the loss.
        traced: the parameters by name as tracers see them; of shards, those that stand for whole ones.
        start: the values of the parameters before the first evaluation, which may write into them.
        ended: of the moved parameters when the method is done, if later evaluations may write into them.
        halves: of every batch but the first before the event, if the cap is relative.
        losses: of batches before the event, by number, as far as they are known without the batches' reports.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: list[Any],
        evaluate: Callable[[Any], Tensor],
        draw: Callable[[Callable[[], Any]], Any],
        monitor: Monitor,
        group: Group,
        plan: Plan = WHOLE,
        traced: Mapping[str, nn.Parameter] | None = None,
    ) -> None:
        self.plan = plan
        self.model = model
        self.batches = batches
        self.evaluate = evaluate
        self.draw = draw
        self.monitor = monitor
        self.group = group
        self.named = dict(model.named_parameters())
        self.traced = self.named if traced is None else traced
        self.names = {parameter: name for name, parameter in self.named.items()}
        self.trainable = [parameter for parameter in self.named.values() if parameter.requires_grad]
        self.moved: set[nn.Parameter] = set()
        self.halves: list[Halves] = []
        self.losses: dict[int, Tensor] = {}
        self.ended: Snapshot | None = None
        self.start: Mapping[nn.Parameter, Tensor] = {}
        if not self.trainable:
            raise ValueError(no_trainable_parameter(model))

    def loss(self, batch: Any) -> Tensor:
        """The loss of a batch over all processes of the group, detached."""
        return self.group.mean([self.evaluate(batch).detach()])[0]

    def mean_loss(self, batches: Iterable[Any]) -> float:
        """The mean loss over some batches."""
        return _mean([float(self.loss(batch)) for batch in batches])

    def batch_loss(self, batch: Any, parameters: list[nn.Parameter]) -> BatchLoss:
        """The loss on ``batch`` with its gradients for ``parameters``."""
        return BatchLoss(
            lambda: self.evaluate(batch), parameters, self.names, batch, self.group, self.start, self.plan.lean
        )

    def halves_of(self, point: Point) -> Halves:
        """``1/2 |g|^2`` per trainable parameter, of a point whose gradients are over these."""
        with torch.no_grad():
            halves = self.group.totals([float(half_squared_norm([gradient])) for gradient in point.gradients])
        return dict(zip(self.trainable, halves, strict=True))

    def measure_from(self, first: int, gradients: bool = False) -> None:
        """Enter the losses of the batches from number ``first`` on; with ``gradients`` their norms as ``halves``."""
        for number in range(first, len(self.batches)):
            batch = self.batches[number]
            if gradients:
                point = self.batch_loss(batch, self.trainable).point(differentiable=False)
                self.halves.append(self.halves_of(point))
                self.losses[number] = point.loss
            else:
                self.losses[number] = self.loss(batch)

    def about_to_move(self, number: int) -> None:
        """Enter the losses of the batches after ``number`` once, before the first move; the others have reports.

        For methods that move on one batch after the other. A batch whose start is at the parameters of the event's
        start or end is then not evaluated once more.
        """
        if not self.losses:
            self.measure_from(number + 1)


def run_event(
    method: str,
    model: nn.Module,
    batches: Iterable[Any],
    loss_fn: LossFn,
    work: Callable[[Event], tuple[list[BatchReport], Sequence[LayerReport]]],
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
    custom_operations: list[bool] = []  # whether the graph of the first evaluation has any

    def moved(before: Snapshot, state: ModelState, batches: list[Any], whole: bool = False) -> Report:
        planned = _evaluation(model, loss_fn, state, custom_operations, shards)
        clear_caches(model, state, lambda: [planned(WHOLE, batches[0])])
        plan = WHOLE
        if shards is not None:
            plan = shards.plan(planned, batches[0], custom_operations)
        elif divisible and not whole:
            plan = choose(model, batches, planned, budget, group, divisible == "recorded", custom_operations)
            if not plan.whole:
                hand_back()
        evaluate = partial(planned, plan)
        monitor = Monitor(method, len(batches), callback, group)
        traced = None if shards is None else shards.whole
        event = Event(model, batches, evaluate, state.draw, monitor, group, plan, traced)
        event.start = before.values
        try:
            reports, layers, losses = _measured(event, work, gradients, in_turn)
            if any(custom_operations):
                check_reach(lambda: evaluate(batches[0]), event.named.items())
        except RuntimeError as error:
            if operation := ONCE_DIFFERENTIABLE.search(str(error)):
                message = f"{method} differentiates twice, and torch cannot: {operation[0]}"
                raise UnsupportedModel(message) from error
            raise
        before.restore_all_but(event.moved)
        if event.ended is not None:
            event.ended.restore()
        layers = [*layers, *(LayerReport(*each, 0, reason=QUANTIZED) for each in quantized_modules(model).items())]
        fill_sizes(layers, event.traced)
        seconds = time.perf_counter() - start
        numbers = (*losses, *_mean_norms(reports))
        report = report_type(method, *numbers, batches=reports, layers=layers, seconds=seconds, memory=plan.chosen)
        if report.no_op:
            report.gradient_norm_after = report.gradient_norm_before  # evaluated twice, it may differ by rounding
            log.info("the teleport moved nothing: %s", "; ".join(report.reasons().splitlines()))
        return report

    def checked() -> Report:
        given = list(batches)
        if not given:
            raise ValueError("a teleport needs at least one batch")
        check_model(model)
        check_signature(loss_fn)
        check_tensors(given)
        group.agree(method=method, number_of_batches=len(given), keep_modes=keep_modes)

        def attempt(whole: bool) -> Report:
            one = closing_line(callback, partial(moved, batches=given, whole=whole))
            return as_one_replica(group, model, partial(all_or_nothing, model, one, keep_modes, group))

        try:
            return attempt(False)
        except NotRepeatable as reason:  # later than in the first evaluation
            if not group.alone:
                raise
            if budget is not None:
                raise ValueError(f"memory={memory!r} needs parts of the event to be repeated, and {reason}") from reason
            log.info("evaluated whole: %s", reason)
            return attempt(True)

    if shards is not None:
        return group.together(partial(shards.during, checked))
    return group.together(partial(with_whole_parameters, group, model, checked))


def _measured(
    event: Event,
    work: Callable[[Event], tuple[list[BatchReport], Sequence[LayerReport]]],
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
        return reports, layers, (_mean(before), _mean(before))
    known = {len(reports) - 1: reports[-1].loss_after if reports[-1].accepted else reports[-1].loss_before}
    if in_turn:  # the other batches since the last move
        known |= {each: reports[each].loss_before for each in range(moved[-1] + 1, len(reports))}
        known[moved[-1]] = reports[moved[-1]].loss_after
    after = [known[each] if each in known else float(event.loss(event.batches[each])) for each in numbers]
    return reports, layers, (_mean(before), _mean(after))


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
        except NotRepeatable:
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


def _mean(losses: Sequence[float]) -> float:
    return math.fsum(losses) / len(losses) if all(map(math.isfinite, losses)) else sum(losses) / len(losses)
