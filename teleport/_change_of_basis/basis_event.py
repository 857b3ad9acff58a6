"""One event of a change of basis: application, undo, and the report of the channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.multiplication import multiplications_of
from teleport._change_of_basis.teleported import Teleported, unwrapped
from teleport._engine.layer_reports import ChannelReport, LayerReport, fill_sizes
from teleport._engine.report import BatchReport
from teleport._engine.transaction import Snapshot, not_accepted
from teleport._processes.group import ALONE, Group
from teleport._processes.shards import Shards
from teleport._quiver.channel_changes import channel_changes, zero_parameters
from teleport._quiver.quiver import Freedom, Quiver
from teleport._quiver.rows import FactorsOfShards, in_rows
from teleport._tracing.evaluations import modes_of
from teleport._tracing.reasons import ZERO_WEIGHTS


class BasisEvent:
    """A model, the change of basis that is applied to it, and its undo.

    Args:
        model: the given model.
        teleport: whether activations may get their teleported form.

    Attributes:
        model: the model that is evaluated: the given one, or its teleported form.
        modes: the training modes of its modules at the start.
        change: the change that acted; all factors are 1 if it was undone.
        moved: a snapshot of the parameters that the change moves; of none before it is known.
        group: of processes that move the model together; set once it is known whether they hold parts of it.
        whole: the parameters by name as tracers see them, if they are not those of the model.
    """

    change: BasisChange
    moved: Snapshot

    def __init__(self, model: nn.Module, teleport: bool) -> None:
        self._given = model
        self.group: Group = ALONE
        self.whole: Mapping[str, nn.Parameter] | None = None
        self._rows: Quiver | None = None
        self.moved = Snapshot([])
        self.model = Teleported(model) if teleport and not isinstance(model, Teleported) else model
        self.modes = modes_of(self.model)
        self._form = self.model.get_extra_state() if isinstance(self.model, Teleported) else None

    @property
    def result(self) -> nn.Module:
        """The model that computes the function now: the given one unless activations are teleported."""
        rewritten = isinstance(self.model, Teleported) and bool(self.model.activations)
        return self.model if rewritten else self._given

    @property
    def names(self) -> dict[nn.Parameter, str]:
        """The name of each parameter in the model that the caller gave."""
        return {parameter: name for name, parameter in unwrapped(self.model).named_parameters()}

    @property
    def factors(self) -> Mapping[nn.Parameter, Tensor]:
        """The factors of each parameter that moved, by the parameters that the optimizer knows."""
        change, group = self.change, self.group
        if not isinstance(group, Shards):
            return change.group
        names = multiplications_of(change.quiver).moved(change.tau)
        return FactorsOfShards(group, {name: change.quiver.scaled[name] for name in names}, change.tau)

    def prepare(self, change: BasisChange) -> set[nn.Parameter]:
        """Set the change of basis; returns the parameters that it moves."""
        self.change = change
        named = dict(unwrapped(self.model).named_parameters())
        moved = {named[name] for name in multiplications_of(change.quiver).moved(change.tau)}
        self.moved = Snapshot(moved)
        if self.group.holds_parts:
            self._rows = dataclasses.replace(change.quiver, scaled=in_rows(self.group, change.quiver.scaled))
        return moved

    def act(self, stopped: bool) -> bool:
        """Change the basis, unless the callback ``stopped`` the event; returns whether anything changed."""
        if stopped:
            self.undo()
        if bool((self.change.tau == 1).all()):
            return False
        multiplied = self.group.anywhere(any(bool(parameter.any()) for parameter in self.moved.parameters))
        (self.change if self._rows is None else BasisChange(self._rows, self.change.tau)).act_on(self.model)
        return multiplied or self.result is not self._given

    def handing(self, function: Callable[[nn.Module, Any], Any]) -> Callable[[nn.Module, Any], Any]:
        """``function(model, batch)`` with the model that the caller gave, whose calls compute the teleported form.

        A loss may touch the parts of the model, which a wrapper around it would hide.
        """
        if not isinstance(self.model, Teleported) or self.model is self._given:
            return function
        teleported = self.model

        def handed(*given: Any) -> Any:  # in any order, so that a mistaken one can be told
            return teleported.inside(
                lambda module: function(*(module if each is teleported else each for each in given))
            )

        return handed

    def undo(self) -> None:
        """Restore parameters and activations, bit for bit."""
        self.put_back()
        self.change = BasisChange(self.change.quiver, torch.ones_like(self.change.tau))

    def put_back(self) -> None:
        """Restore parameters, if the event got as far as to move any, and activations."""
        self.moved.restore()
        if isinstance(self.model, Teleported) and self._form is not None:
            self.model.set_extra_state(self._form)

    def judge(self, reports: Sequence[BatchReport], reasons: Iterable[str]) -> None:
        """Undo the change if any batch has a reason; the change is common to all batches."""
        if not_accepted(reports, reasons):
            self.undo()

    def layers(self) -> list[LayerReport]:
        """One report per weight with output channels, and one per parameter that stays for a reason of its own."""
        quiver, tau = self.change.quiver, self.change.tau
        free = quiver.freedom.cpu() != Freedom.PINNED
        alone = _sizes(quiver) == 1
        reports: list[LayerReport] = []
        groups = {name: units.cpu().flatten() for name, units in quiver.channel_classes.items()}
        empty = zero_parameters(in_rows(self.group, quiver.scaled), self.group)
        changes, zero = channel_changes(tau - 1, groups, quiver.scaled, empty)
        for name, classes in groups.items():
            change = changes[name]
            own, single = free[classes], alone[classes]
            pinned = int((~own).sum())
            reason = quiver.reasons.get(name, "") if pinned or not (change or name in zero) else ""
            reports.append(
                ChannelReport(
                    name,
                    quiver.kinds[name],
                    len(classes),
                    relative_change=change,
                    reason=reason or ("" if change else ZERO_WEIGHTS if name in zero else "no step was taken or kept"),
                    free=int((own & single).sum()),
                    shared=int((own & ~single).sum()),
                    pinned=pinned,
                )
            )
        others = {name: reason for name, reason in quiver.reasons.items() if name not in groups}
        others |= {name: "" for name in changes if name not in groups}
        reports += [ChannelReport(name, "parameter", 0, changes.get(name, 0.0), why) for name, why in others.items()]
        fill_sizes(reports, dict(unwrapped(self.model).named_parameters()) if self.whole is None else self.whole)
        return list(reports)


def _sizes(quiver: Quiver) -> Tensor:
    """``[classes]``: the number of channels per class."""
    units = [units.cpu().flatten() for units in quiver.channel_classes.values()]
    return torch.bincount(torch.cat([torch.zeros(0, dtype=torch.int64), *units]), minlength=len(quiver.freedom))
