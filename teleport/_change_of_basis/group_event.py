"""One event of a change of basis by an element of a network's groups: find, draw, apply, compare and report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.common_move import agree_on_symmetries, broken_outputs, report_of, tell_of_step
from teleport._change_of_basis.group_value import GroupChange
from teleport._change_of_basis.report import GroupReport
from teleport._engine.contract import Monitor
from teleport._engine.held_tensors import HeldTensors
from teleport._engine.layer_reports import LayerReport, fill_sizes
from teleport._engine.loss_call import with_devices_told
from teleport._engine.on_shards import GatheredEvaluation, ShardedModel
from teleport._engine.progress import Callback, closing_line
from teleport._engine.replicas import as_one_replica
from teleport._engine.statuses import Stopped
from teleport._engine.transaction import Snapshot, all_or_nothing, not_accepted
from teleport._processes.group import Group
from teleport._symmetry_groups.elements import GroupElement
from teleport._symmetry_groups.find_symmetries import persistent_buffers, trace_symmetries
from teleport._symmetry_groups.symmetries import Symmetries
from teleport._tracing.caches import clear_caches
from teleport._tracing.evaluations import modes_of
from teleport._tracing.outputs import Forward, difference, outputs_of
from teleport._tracing.preconditions import check_tensors
from teleport._tracing.undisturbed import ModelState

Draw = Callable[[Symmetries, HeldTensors], GroupChange]


class GroupMove:
    """One event.

    Args:
        model: the given model.
        batches: the first shows the structure, all of them whether the function was kept.
        evaluate: ``evaluate(model, batch)``, a loss or outputs.
        loss: whether it is a loss.
        draw: the element, of the symmetries that were found.
        tolerance: of the guard; ``None`` for none.
        callback: of the caller.
        group: of processes that move the model together.
        shards: the model as its shards, if each of them holds rows of the parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Any],
        evaluate: Forward,
        loss: bool,
        draw: Draw,
        tolerance: float | None,
        callback: Callback | None,
        group: Group,
        shards: ShardedModel | None,
    ) -> None:
        self.model, self.batches, self.draw, self.group, self.shards = model, batches, draw, group, shards
        self.evaluate = evaluate if shards is None else GatheredEvaluation(shards, evaluate)
        self.loss, self.tolerance = loss, tolerance
        self.callback, self.monitor = callback, Monitor("change of basis", len(batches), callback, group)
        self.modes = modes_of(model)
        self.buffers = persistent_buffers(model)
        self.before = Snapshot([])
        self._old: dict[str, Tensor] = {}
        self.fold_norms = False

    def run(self) -> GroupReport:
        """Find, draw, apply and compare; after an exception parameters and buffers are as before."""
        if not self.batches:
            raise ValueError("a teleport needs at least one batch")
        check_tensors(self.batches)
        self.group.agree(number_of_batches=len(self.batches))
        self._old = {name: buffer.clone() for name, buffer in self.buffers.items()}
        try:
            work = partial(all_or_nothing, self.model, closing_line(self.callback, self._moved), False, self.group)
            report = as_one_replica(self.group, self.model, work)
            self._move_buffers(report.change)  # after they were restored, as evaluations may change them
            return report
        except BaseException:
            self.put_back()
            raise

    @torch.no_grad()
    def put_back(self) -> None:
        """Restore parameters and buffers, if the event got as far as to move any."""
        self.before.restore()
        for name, value in self._old.items():
            self.buffers[name].copy_(value)

    def _move_buffers(self, change: BasisChange | GroupChange) -> None:
        """Let a change act on the buffers of this process."""
        elements = [part for part in getattr(change, "parts", ()) if isinstance(part, GroupElement)]
        for each in elements:
            own = {name: axes for name, axes in each.axes.items() if name in self.buffers}
            GroupElement(own, each.actions).act(HeldTensors(self.buffers))

    def _moved(self, before: Snapshot, state: ModelState) -> GroupReport:
        start = time.perf_counter()
        self.before = before

        def outputs(batch: Any) -> list[Tensor]:
            call = partial(outputs_of, self.model, batch, self.evaluate)
            return with_devices_told(lambda: state.evaluate(call), self.model, batch)

        if isinstance(self.evaluate, GatheredEvaluation):
            self.evaluate.choose(state, self.model, self.batches[0])
        clear_caches(self.model, state, lambda: outputs(self.batches[0]))
        first = [outputs(batch) for batch in self.batches]
        runs = [partial(state.evaluate, partial(self.evaluate, self.model, batch)) for batch in self.batches]
        whole = None if self.shards is None else self.shards.whole
        symmetries = trace_symmetries(
            self.model, runs, self.modes, self.batches, fold_norms=self.fold_norms, whole=whole, group=self.group
        )
        agree_on_symmetries(self.group, symmetries)
        held = HeldTensors.of(self.model, self.group)
        change, values = self.draw(symmetries, held), self._losses(first)
        stopped = tell_of_step(self.monitor, 0, values)
        old = {name: buffer.clone() for name, buffer in self.buffers.items()}
        if not stopped:
            change.act(held)
            stopped = tell_of_step(self.monitor, 1, values)
        statistics = any(not torch.equal(buffer, old[name]) for name, buffer in self.buffers.items())
        acted = statistics or self._any_moved(before)
        after = [outputs(batch) for batch in self.batches]
        moved = self._losses(after)
        moves = [self._difference(*each) for each in zip(first, after, values, moved, strict=True)]
        before.restore_all_but(self._movable(change))
        reports = [
            report_of(acted, stopped, one, math.nan, other, math.nan)
            for (one, _), (other, _) in zip(values, moved, strict=True)
        ]
        layers = self._layers(symmetries, before)
        own = ["" if self.tolerance is None else broken_outputs(each, self.tolerance, before) for each in moves]
        reasons = self.group.reasons(own)
        if not_accepted(reports, reasons, Stopped.ROLLED_BACK):
            before.restore()
            change = GroupChange([])
        losses = [(each.loss_before, each.loss_after) for each in reports]
        one, other = (sum(each) / len(losses) for each in zip(*losses, strict=True))
        seconds = time.perf_counter() - start
        report = GroupReport("change of basis", one, other, math.nan, math.nan, reports, layers, seconds)
        report.difference = None if self.loss else max(self.group.gathered(max(moves)))
        if isinstance(self.evaluate, GatheredEvaluation):
            report.memory = self.evaluate.plan.chosen
        report.model, report.change, report.symmetries = self.model, change, symmetries
        return report

    def _movable(self, change: GroupChange) -> set[nn.Parameter]:
        """The parameters that the change may move."""
        named = dict(self.model.named_parameters())
        names = {
            name
            for part in change.parts
            for name in (part.axes if isinstance(part, GroupElement) else part.quiver.scaled)
        }
        return {named[name] for name in names if name in named}

    def _any_moved(self, before: Snapshot) -> bool:
        own = any(not torch.equal(parameter, value) for parameter, value in before.values.items())
        return self.group.anywhere(own)

    def _difference(
        self, first: list[Tensor], after: list[Tensor], loss: tuple[float, float], moved: tuple[float, float]
    ) -> float:
        """How far a loss moved, relative to at least 1, or the outputs, relative to the largest."""
        if not self.loss:
            return difference(first, after)
        return abs(moved[0] - loss[0]) / max(1.0, abs(loss[0]))

    def _losses(self, outputs: Sequence[list[Tensor]]) -> list[tuple[float, float]]:
        """The mean loss of each batch over the processes, and no norm; not a number if the outputs are compared."""
        losses = [float(each[0]) if self.loss else math.nan for each in outputs]
        return [(each, math.nan) for each in (self.group.mean_of(losses) if self.loss else losses)]

    def _layers(self, symmetries: Symmetries, before: Snapshot) -> list[LayerReport]:
        """One report per parameter: how far it moved, or why it stayed."""
        named, values = dict(self.model.named_parameters()), before.values
        own = [_norms(parameter, values.get(parameter, parameter)) for parameter in named.values()]
        norms = self.group.lengths(*(norm for pair in own for norm in pair))
        layers = []
        for name, moved, norm in zip(named, norms[::2], norms[1::2], strict=True):
            change = moved / norm if norm else 0.0
            reason = "" if change else symmetries.pinned.get(name, "its values are as before")
            layers.append(LayerReport(name, "parameter", 0, change, reason))
        fill_sizes(layers, named if self.shards is None else self.shards.whole)
        return layers


@torch.no_grad()
def _norms(parameter: Tensor, value: Tensor) -> tuple[float, float]:
    """Of the difference to an earlier value, and of that value."""
    return float((parameter.double() - value.double()).norm()), float(value.double().norm())
