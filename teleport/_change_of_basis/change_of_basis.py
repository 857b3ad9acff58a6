"""Teleportation by a change of basis of the neurons (Armenta et al., *Neural Teleportation*, 2023)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from teleport._arguments import check_call, check_choice, check_generator, check_positive, seeded
from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.basis_event import BasisEvent
from teleport._change_of_basis.common_move import (
    broken_outputs,
    draw_alike,
    half_tolerance,
    loss_and_norm,
    report_of,
    tell_of_step,
)
from teleport._change_of_basis.finding import quiver_for
from teleport._change_of_basis.group_change import GroupName, check_group, group_move
from teleport._change_of_basis.report import ChangeOfBasisReport
from teleport._change_of_basis.sampling import Sampling, check_sampling, draw_tau
from teleport._engine.contract import LossFn, Monitor
from teleport._engine.event import Event, run_event
from teleport._engine.finiteness import not_finite_at_any, not_finite_outputs
from teleport._engine.loss_call import check_signature, with_devices_told
from teleport._engine.progress import Callback, closing_line
from teleport._engine.replicas import as_one_replica
from teleport._engine.report import BatchReport, LayerReport
from teleport._engine.sharded import with_whole_parameters
from teleport._engine.statuses import Stopped
from teleport._engine.transaction import Snapshot, all_or_nothing, not_accepted, violation
from teleport._errors import UnsupportedModel
from teleport._processes.group import Group
from teleport._processes.ranks import Processes, group_of
from teleport._quiver.quiver import Freedom, Quiver
from teleport._tracing.caches import clear_caches
from teleport._tracing.evaluations import Modes, modes_of
from teleport._tracing.outputs import Forward, call_model, difference, outputs_of
from teleport._tracing.preconditions import check_model, check_tensors
from teleport._tracing.replicas import is_sharded
from teleport._tracing.undisturbed import ModelState, undisturbed

_CHECKPOINTED = (
    'activations="teleport" does not reach activations that are computed again in the backward pass, and this model '
    'uses activation checkpointing; take "keep"'
)

_Change = Callable[[Sequence[Callable[[], Any]]], set[nn.Parameter]]
"""Finds and draws a change of basis for what evaluations of the batches show; tells which parameters it moves."""


class ChangeOfBasis:
    """Multiply every hidden channel by a random tau and its readers by the inverse: the same function, other weights.

    Channels that are added or otherwise combined carry one tau. Channels that enter a standardisation, or a function
    without a rule, are pinned to 1. The report counts free, shared and pinned channels, with the reasons.

    With ``activations="keep"`` only parameters change: channels that enter ReLU and its like carry ``|tau|``, those
    that enter another activation carry 1. With ``"teleport"`` any activation f with a tau that does not pass through it
    is computed as ``tau f(x / tau)``, by the model ``report.model``, with which training continues.

    The function stays; the further course of an optimizer changes. The gradient is divided by the factors
    that the weights are multiplied by (Theorem 5.1), so it grows if weights shrink; unlike
    :class:`teleport.Rescaling`, the method does not maximise it. A regulariser on the weights is not kept.

    Args:
        range: the CoB-range sigma.
        sampling: the distribution of tau, drawn independently for each class of channels: ``"intra"`` is U(1 - range,
            1 + range), ``"inter"`` an equal mix of that and of U(-1 - range, -1 + range), ``"positive"`` U(0, range),
            ``"negative"`` U(-range, 0), ``"centered"`` U(center - range, center + range). ``|tau|`` is at least 0.001.
        center: of ``"centered"``.
        activations: ``"keep"`` or ``"teleport"``.
        guard: ``"transaction"`` undoes a change that moved the loss of a batch by more than
            ``tolerance * max(1, |loss|)``, or, without a loss, an output by more than ``tolerance`` times the largest;
            ``"none"`` keeps it.
        tolerance: of the guard; of a model in half precision at least 16 of its rounding errors.
        seed: of ``generator``, the common source of successive calls.
        group: ``"scaling"``, the factors above, or a group of :func:`teleport.find_symmetries`: ``"permutation"``
            (with signs before odd functions), ``"orthogonal"``, ``"general"`` (matrices of singular values from
            ``1 - range``, at least 0.05, to ``1 + range``), ``"all"``. Statistics of batch norm move along.
        fold_norms: whether weights of norms, and layer scales, are folded into the linear maps beside them first, so
            that rotations of what they multiply act; of another group than ``"scaling"``. ``report.symmetries.folded``
            names them.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        range: float = 0.9,
        sampling: Sampling = "intra",
        center: float = 1.0,
        activations: Literal["keep", "teleport"] = "keep",
        guard: Literal["transaction", "none"] = "transaction",
        tolerance: float = 1e-3,
        seed: int = 0,
        group: GroupName = "scaling",
        fold_norms: bool = False,
    ) -> None:
        check_sampling(sampling, range, center)
        check_choice("activations", activations, ("keep", "teleport"))
        check_choice("guard", guard, ("transaction", "none"))
        check_positive(tolerance=tolerance)
        check_group(group, activations, fold_norms)
        self.group = group
        self.fold_norms = fold_norms
        self.range = range
        self.sampling = sampling
        self.center = center
        self.activations = activations
        self.guard = guard
        self.tolerance = tolerance
        self.seed = seed
        self.generator = seeded(seed)

    def __call__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        loss_fn: LossFn | None = None,
        forward: Forward | None = None,
        *,
        generator: torch.Generator | None = None,
        callback: Callback | None = None,
        keep_modes: bool = False,
        process_group: Processes = None,
    ) -> ChangeOfBasisReport:
        """Teleport ``model``; ``report.model`` computes its function afterwards, ``report.change`` has acted.

        Args:
            model: any module. Modes, buffers, ``requires_grad``, ``.grad`` and torch's global random state come back as
                they were. After an exception the parameters do, too.
            batches: the first shows the model's structure (with others, while parts of the model are not reached), all
                of them whether its function was kept. The channels that a part which no batch reaches may read stay.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor; measured before and after, gradient norm included.
                ``None``: the outputs are compared instead, and losses and norms of the report are not numbers.
            forward: ``forward(model, batch)``, one evaluation, used without a loss; by default the model called with
                the batch, or with the first entry of a tuple or list; with a mapping as keyword arguments.
            generator: the source of the factors in place of the method's own; on the CPU.
            callback: called per batch before the change and after it (step 1), see ``teleport.Callback``. If it ends
                the event before the change, nothing moves. Without a loss, losses and norms are NaN.
            keep_modes: see :class:`teleport.Teleporter`.
            process_group: see :class:`teleport.Teleporter`.

        Raises:
            ValueError: no batches, a loss that is no scalar or depends on no trainable parameter, or no such parameter;
                or activations are to be teleported in a model that is not called itself.
            UnsupportedModel: or in one that calls other activations in training than in evaluation.
        """
        check_generator(generator)
        check_call(model, batches, loss_fn or call_model, callback, keep_modes)
        check_signature(loss_fn or forward or call_model, "loss_fn" if loss_fn else "forward")
        event, group = BasisEvent(model, self.activations == "teleport"), group_of(process_group, model)
        if self.group != "scaling":
            return group_move(self, model, list(batches), loss_fn, forward, generator, callback, keep_modes, group)

        def change(evaluations: Sequence[Callable[[], Any]]) -> set[nn.Parameter]:
            quiver = self.find(event.model, evaluations[0], event.modes, evaluations[1:], batches)
            draw_alike(group, quiver, generator or self.generator)
            return event.prepare(self.sample(quiver, generator))

        def moved() -> ChangeOfBasisReport:
            report: ChangeOfBasisReport
            check_model(model)
            try:
                if loss_fn is None:
                    handed = event.handing(forward or call_model)
                    report = group.together(
                        lambda: self._by_outputs(event, change, list(batches), handed, callback, keep_modes, group)
                    )
                else:
                    report = run_event(
                        "change of basis",
                        event.model,
                        batches,
                        event.handing(loss_fn),
                        lambda losses: self._by_loss(event, change, losses),
                        callback,
                        ChangeOfBasisReport,
                        keep_modes=keep_modes,
                        process_group=group,
                    )
                report.model, report.change, report.group = event.result, event.change, event.change.group
                return report
            except BaseException as error:
                event.put_back()  # also after the move: without its report the teleported form would be lost
                if isinstance(error, CheckpointError) and self.activations == "teleport":
                    raise UnsupportedModel(_CHECKPOINTED) from error
                raise

        try:
            return with_whole_parameters(group, model, moved)
        except BaseException:  # an interrupt after the move, before the report is the caller's
            if not any(map(is_sharded, model.parameters())):  # shards are written last
                event.put_back()
            raise

    def capture(
        self, model: nn.Module, batch: Any, loss_fn: LossFn | None = None, forward: Forward | None = None
    ) -> Quiver:
        """The quiver of ``model``, which serves any number of :meth:`sample`; arguments as in a call."""
        evaluate = loss_fn or forward or call_model
        modes = modes_of(model)

        def traced(state: ModelState) -> Quiver:
            return self.find(model, lambda: state.evaluate(lambda: evaluate(model, batch)), modes, (), [batch])

        return undisturbed(model, traced)

    def sample(self, quiver: Quiver, generator: torch.Generator | None = None) -> BasisChange:
        """A random change of basis, of ``generator`` or of the method's own; its ``apply`` has no guard."""
        drawn = draw_tau(len(quiver.freedom), self.sampling, self.range, self.center, generator or self.generator)
        tau = torch.where(quiver.freedom.cpu() == Freedom.POSITIVE, drawn.abs(), drawn)
        return BasisChange(quiver, quiver.complete(tau.to(quiver.freedom.device)).cpu())

    def find(
        self,
        model: nn.Module,
        evaluate: Callable[[], Any],
        modes: Modes,
        others: Sequence[Callable[[], Any]] = (),
        batches: Iterable[Any] = (),
    ) -> Quiver:
        """The quiver of ``model`` as traced in ``evaluate``; see ``quiver_for``."""
        return quiver_for(self.activations, model, evaluate, modes, others, list(batches))

    def _by_loss(
        self, event: BasisEvent, change: _Change, losses: Event
    ) -> tuple[list[BatchReport], list[LayerReport]]:
        """Change the basis, and check the function by the losses of the batches."""
        losses.moved |= change([partial(losses.evaluate, batch) for batch in losses.batches])
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
                    violation(old[0], new[0], new[1], tolerance, event.moved)
                    for old, new in zip(before, after, strict=True)
                ],
            )
        return reports, event.layers()

    def _by_outputs(
        self,
        event: BasisEvent,
        change: _Change,
        batches: list[Any],
        forward: Forward,
        callback: Callback | None,
        keep_modes: bool,
        group: Group,
    ) -> ChangeOfBasisReport:
        """Change the basis, and check the function by the outputs on the batches."""
        start = time.perf_counter()
        if not batches:
            raise ValueError("a teleport needs at least one batch")
        check_tensors(batches)
        group.agree(number_of_batches=len(batches), keep_modes=keep_modes)
        parameters = list(event.model.parameters())

        def moved(before: Snapshot, state: ModelState) -> ChangeOfBasisReport:
            def evaluate(batch: Any) -> Any:
                return state.evaluate(lambda: forward(event.model, batch))

            def outputs(batch: Any) -> list[Tensor]:
                call = partial(outputs_of, event.model, batch, forward)
                return with_devices_told(lambda: state.evaluate(call), event.model, batch)

            clear_caches(event.model, state, lambda: outputs(batches[0]))
            first = [outputs(batch) for batch in batches]
            moved = change([partial(evaluate, batch) for batch in batches])
            unknown = [(math.nan, math.nan)] * len(batches)
            monitor = Monitor("change of basis", len(batches), callback, group)
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
            report = ChangeOfBasisReport("change of basis", nan, nan, nan, nan, reports, event.layers(), seconds)
            report.difference = max(group.gathered(max(moves)))
            return report

        closed = closing_line(callback, moved)
        return as_one_replica(group, event.model, partial(all_or_nothing, event.model, closed, keep_modes, group))
