"""One event of a change of basis: application, undo, and the report of the channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.multiplication import multiplications_of
from teleport._change_of_basis.teleported import Teleported, unwrapped
from teleport._engine.report import BatchReport, ChannelReport, LayerReport, fill_sizes
from teleport._engine.statuses import Stopped
from teleport._engine.transaction import Snapshot
from teleport._quiver.quiver import Freedom, Quiver
from teleport._tracing.evaluations import modes_of


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
    """

    change: BasisChange
    moved: Snapshot

    def __init__(self, model: nn.Module, teleport: bool) -> None:
        self._given = model
        self.moved = Snapshot([])
        self.model = Teleported(model) if teleport and not isinstance(model, Teleported) else model
        self.modes = modes_of(self.model)
        self._form = self.model.get_extra_state() if isinstance(self.model, Teleported) else None

    @property
    def result(self) -> nn.Module:
        """The model that computes the function now: the given one unless activations are teleported."""
        rewritten = isinstance(self.model, Teleported) and bool(self.model.activations)
        return self.model if rewritten else self._given

    def prepare(self, change: BasisChange) -> set[nn.Parameter]:
        """Set the change of basis; returns the parameters that it moves."""
        self.change = change
        named = dict(unwrapped(self.model).named_parameters())
        moved = {named[name] for name in multiplications_of(change.quiver).moved(change.tau)}
        self.moved = Snapshot(moved)
        return moved

    def act(self, stopped: bool) -> bool:
        """Change the basis, unless the callback ``stopped`` the event; returns whether anything changed."""
        if stopped:
            self.undo()
        if bool((self.change.tau == 1).all()):
            return False
        self.change.act_on(self.model)
        return True

    def handing(self, function: Callable[[nn.Module, Any], Any]) -> Callable[[nn.Module, Any], Any]:
        """``function(model, batch)`` with the model that the caller gave, whose calls compute the teleported form.

        A loss may touch the parts of the model, which a wrapper around it would hide.
        """
        if not isinstance(self.model, Teleported) or self.model is self._given:
            return function
        teleported = self.model
        return lambda _, batch: teleported.inside(lambda module: function(module, batch))

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
        for report, reason in zip(reports, reasons, strict=True):
            report.reason = reason
        if broken := next((report.reason for report in reports if report.reason), ""):
            self.undo()
            for report in reports:
                report.accepted, report.stopped, report.reason = False, Stopped.ROLLED_BACK, report.reason or broken

    def layers(self) -> list[LayerReport]:
        """One report per weight with output channels, and one per parameter that stays for a reason of its own."""
        quiver, tau = self.change.quiver, self.change.tau
        free = quiver.freedom.cpu() != Freedom.PINNED
        alone = _sizes(quiver) == 1
        reports: list[LayerReport] = []
        for name, units in quiver.channel_classes.items():
            classes = units.cpu().flatten()
            own, single = free[classes], alone[classes]
            change = float((tau[classes] - 1).square().mean().sqrt()) if len(classes) else 0.0
            pinned = int((~own).sum())
            reason = quiver.reasons.get(name, "") if pinned or not change else ""
            reports.append(
                ChannelReport(
                    name,
                    quiver.kinds[name],
                    len(classes),
                    relative_change=change,
                    reason=reason or ("" if change else "no step was taken or kept"),
                    free=int((own & single).sum()),
                    shared=int((own & ~single).sum()),
                    pinned=pinned,
                )
            )
        others = [(name, reason) for name, reason in quiver.reasons.items() if name not in quiver.channel_classes]
        reports += [ChannelReport(name, "parameter", 0, reason=reason) for name, reason in others]
        fill_sizes(reports, dict(unwrapped(self.model).named_parameters()))
        return list(reports)


def _sizes(quiver: Quiver) -> Tensor:
    """``[classes]``: the number of channels per class."""
    units = [units.cpu().flatten() for units in quiver.channel_classes.values()]
    return torch.bincount(torch.cat([torch.zeros(0, dtype=torch.int64), *units]), minlength=len(quiver.freedom))
