"""A change of basis by an element of the groups that ``find_symmetries`` finds: event, guard and report."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from teleport._arguments import check_choice
from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.common_move import broken_outputs, half_tolerance, report_of, tell_of_step
from teleport._change_of_basis.group_value import GroupChange
from teleport._change_of_basis.report import GroupReport
from teleport._engine.contract import LossFn, Monitor
from teleport._engine.loss_call import with_devices_told
from teleport._engine.progress import Callback, closing_line
from teleport._engine.report import LayerReport, fill_sizes
from teleport._engine.statuses import Stopped
from teleport._engine.transaction import Snapshot, all_or_nothing, not_accepted
from teleport._processes.group import Group
from teleport._quiver.quiver import Quiver
from teleport._symmetry_groups.elements import GroupElement
from teleport._symmetry_groups.find_symmetries import persistent_buffers, trace_symmetries
from teleport._symmetry_groups.folding import own_classes
from teleport._symmetry_groups.symmetries import Symmetries
from teleport._tracing.caches import clear_caches
from teleport._tracing.evaluations import modes_of
from teleport._tracing.outputs import Forward, call_model, difference, outputs_of
from teleport._tracing.preconditions import check_tensors
from teleport._tracing.undisturbed import ModelState

GroupName = Literal["scaling", "permutation", "orthogonal", "general", "all"]
GROUPS = get_args(GroupName)

Draw = Callable[[Symmetries], GroupChange]

LEAST_SINGULAR_VALUE = 0.05
"""Of random matrices, so that they stay well conditioned at any range."""


class Settings(Protocol):
    """What a move takes from its ``ChangeOfBasis``."""

    group: GroupName
    range: float
    fold_norms: bool
    guard: Literal["transaction", "none"]
    tolerance: float
    generator: torch.Generator

    def sample(self, quiver: Quiver, generator: torch.Generator | None = None) -> BasisChange:
        """A random change by factors."""
        ...


def check_group(group: str, activations: str, fold_norms: bool) -> None:
    """Refuse an unknown group, teleported activations with another than ``"scaling"``, and folding with it.

    Raises:
        ValueError: the sentence names both.
        TypeError: ``fold_norms`` is neither True nor False.
    """
    check_choice("group", group, GROUPS)
    if not isinstance(fold_norms, bool):
        raise TypeError(f"fold_norms must be True or False, got {fold_norms!r}")
    if group != "scaling" and activations == "teleport":
        raise ValueError(f'activations="teleport" is of group="scaling" alone, got group={group!r}')
    if group == "scaling" and fold_norms:
        raise ValueError('fold_norms=True is for other groups than "scaling"')


def group_move(
    settings: Settings,
    model: nn.Module,
    batches: Sequence[Any],
    loss_fn: LossFn | None,
    forward: Forward | None,
    generator: torch.Generator | None,
    callback: Callback | None,
    keep_modes: bool,
    processes: Group,
) -> GroupReport:
    """One event; arguments as of a call of ``ChangeOfBasis``.

    Raises:
        ValueError: no batches, ``keep_modes``, or several processes.
    """
    if not batches:
        raise ValueError("a teleport needs at least one batch")
    if not processes.alone:
        raise ValueError(
            f'{processes.size} processes teleport together with group="scaling" alone, got group={settings.group!r}: '
            "move the model before it is replicated"
        )
    if keep_modes:
        raise ValueError(
            f'keep_modes=True is of group="scaling" alone, got group={settings.group!r}: statistics of batch norm, '
            "which evaluations in training mode change, move with their channels"
        )
    check_tensors(batches)
    source = generator or settings.generator

    def draw(symmetries: Symmetries) -> GroupChange:
        stretch = (max(LEAST_SINGULAR_VALUE, 1 - settings.range), 1 + settings.range)
        element = symmetries.sample(settings.group, source, stretch)
        factors = [settings.sample(symmetries.quiver, source)] if settings.group == "all" else []
        folding = [symmetries.folding()] if symmetries.folded else []
        for change, name in itertools.product(factors, symmetries.folded):  # they stay one
            change.tau[own_classes(symmetries.quiver, name)[0]] = 1
        return GroupChange([*folding, *factors, element])

    tolerance = half_tolerance(settings.tolerance, model.parameters()) if settings.guard == "transaction" else None
    move = GroupMove(model, batches, loss_fn or forward or call_model, loss_fn is not None, draw, tolerance, callback)
    move.fold_norms = settings.fold_norms
    return move.run()


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
    ) -> None:
        self.model, self.batches, self.evaluate, self.draw = model, batches, evaluate, draw
        self.loss, self.tolerance = loss, tolerance
        self.callback, self.monitor = callback, Monitor("change of basis", len(batches), callback)
        self.modes = modes_of(model)
        self.buffers = persistent_buffers(model)
        self.statistics: dict[str, Tensor] = {}  # buffers after the move, if it stays
        self.before = Snapshot([])
        self.fold_norms = False

    def run(self) -> GroupReport:
        """Find, draw, apply and compare; after an exception parameters and buffers are as before."""
        old = {name: buffer.clone() for name, buffer in self.buffers.items()}
        try:
            report = all_or_nothing(self.model, closing_line(self.callback, self._moved))
            self._write(self.statistics)  # after the buffers were restored, as evaluations may change them
            return report
        except BaseException:
            self.before.restore()
            self._write(old)
            raise

    @torch.no_grad()
    def _write(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.buffers[name].copy_(value)

    def _moved(self, before: Snapshot, state: ModelState) -> GroupReport:
        start = time.perf_counter()
        self.before = before

        def outputs(batch: Any) -> list[Tensor]:
            call = partial(outputs_of, self.model, batch, self.evaluate)
            return with_devices_told(lambda: state.evaluate(call), self.model, batch)

        clear_caches(self.model, state, lambda: outputs(self.batches[0]))
        first = [outputs(batch) for batch in self.batches]
        runs = [partial(state.evaluate, partial(self.evaluate, self.model, batch)) for batch in self.batches]
        symmetries = trace_symmetries(self.model, runs, self.modes, self.batches, fold_norms=self.fold_norms)
        change = self.draw(symmetries)
        values = self._losses(first)
        stopped = tell_of_step(self.monitor, 0, values)
        old = {name: buffer.clone() for name, buffer in self.buffers.items()}
        if not stopped:
            change.apply(self.model)
            self.statistics = {
                name: buffer.clone() for name, buffer in self.buffers.items() if not torch.equal(buffer, old[name])
            }
            stopped = tell_of_step(self.monitor, 1, values)
        acted = bool(self.statistics) or self._any_moved(before)
        after = [outputs(batch) for batch in self.batches]
        moves = [self._difference(one, other) for one, other in zip(first, after, strict=True)]
        before.restore_all_but(self._movable(change))
        reports = [
            report_of(acted, stopped, loss, math.nan, moved, math.nan)
            for (loss, _), (moved, _) in zip(values, self._losses(after), strict=True)
        ]
        layers = self._layers(symmetries, before)
        reasons = ["" if self.tolerance is None else broken_outputs(each, self.tolerance, before) for each in moves]
        if not_accepted(reports, reasons, Stopped.ROLLED_BACK):
            before.restore()
            self.statistics, change = {}, GroupChange([])
        losses = [(each.loss_before, each.loss_after) for each in reports]
        one, other = (sum(each) / len(losses) for each in zip(*losses, strict=True))
        seconds = time.perf_counter() - start
        report = GroupReport("change of basis", one, other, math.nan, math.nan, reports, layers, seconds)
        report.difference = None if self.loss else max(moves)
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
        return any(not torch.equal(parameter, value) for parameter, value in before.values.items())

    def _difference(self, first: list[Tensor], after: list[Tensor]) -> float:
        """How far a loss moved, relative to at least 1, or the outputs, relative to the largest."""
        if not self.loss:
            return difference(first, after)
        one, other = float(first[0]), float(after[0])
        return abs(other - one) / max(1.0, abs(one))

    def _losses(self, outputs: Sequence[list[Tensor]]) -> list[tuple[float, float]]:
        """The loss of each batch, and no norm; not a number if the outputs are compared."""
        return [(float(each[0]) if self.loss else math.nan, math.nan) for each in outputs]

    def _layers(self, symmetries: Symmetries, before: Snapshot) -> list[LayerReport]:
        """One report per parameter: how far it moved, or why it stayed."""
        named = dict(self.model.named_parameters())
        layers = []
        for name, parameter in named.items():
            value = before.values.get(parameter)
            change = 0.0 if value is None else _relative(parameter, value)
            reason = "" if change else symmetries.pinned.get(name, "its values are as before")
            layers.append(LayerReport(name, "parameter", 0, change, reason))
        fill_sizes(layers, named)
        return layers


@torch.no_grad()
def _relative(parameter: Tensor, value: Tensor) -> float:
    norm = float(value.double().norm())
    return float((parameter.double() - value.double()).norm()) / norm if norm else 0.0
