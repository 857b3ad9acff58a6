"""One event of a change of basis: what is found, done and undone, and what the report says of the channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    """A model, the change of basis that is tried on it, and the way back.

    Args:
        model: as it was handed over.
        teleport: whether activations may get their teleported form.

    Attributes:
        model: what evaluations are made with: the model, or its teleported form.
        modes: of its modules, as it was handed over.
        change: what acted; nothing but ones where it was undone.
        snapshot: of the parameters that it moved.
    """

    change: BasisChange
    snapshot: Snapshot

    def __init__(self, model: nn.Module, teleport: bool) -> None:
        self._given = model
        self.model = Teleported(model) if teleport and not isinstance(model, Teleported) else model
        self.modes = modes_of(self.model)
        self._form = self.model.get_extra_state() if isinstance(self.model, Teleported) else None

    @property
    def result(self) -> nn.Module:
        """The model that computes the function now: the given one wherever it does."""
        rewritten = isinstance(self.model, Teleported) and bool(self.model.activations)
        return self.model if rewritten else self._given

    def prepare(self, change: BasisChange) -> set[nn.Parameter]:
        """Take a change of basis on, and tell which parameters it moves."""
        self.change = change
        named = dict(unwrapped(self.model).named_parameters())
        moved = {named[name] for name in multiplications_of(change.quiver).moved(change.tau)}
        self.snapshot = Snapshot(moved)
        return moved

    def act(self, stopped: bool) -> bool:
        """Change the basis, unless the callback ``stopped`` the event; whether that changed anything."""
        if stopped:
            self.undo()
        if bool((self.change.tau == 1).all()):
            return False
        self.change.apply(self.model)
        return True

    def undo(self) -> None:
        """Put parameters and activations back, bit for bit."""
        self.snapshot.restore()
        self.restore_form()
        self.change = BasisChange(self.change.quiver, torch.ones_like(self.change.tau))

    def restore_form(self) -> None:
        """Put the activations back."""
        if isinstance(self.model, Teleported) and self._form is not None:
            self.model.set_extra_state(self._form)

    def judge(self, reports: Sequence[BatchReport], reasons: Iterable[str]) -> None:
        """Undo the change where a batch has a reason to: all moved together."""
        for report, reason in zip(reports, reasons, strict=True):
            report.reason = reason
        if broken := next((report.reason for report in reports if report.reason), ""):
            self.undo()
            for report in reports:
                report.accepted, report.stopped, report.reason = False, Stopped.ROLLED_BACK, report.reason or broken

    def layers(self) -> list[LayerReport]:
        """A report a weight that makes channels, and one a parameter that stays for a reason of its own."""
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
    """``[classes]``: how many channels carry each."""
    units = [units.cpu().flatten() for units in quiver.channel_classes.values()]
    return torch.bincount(torch.cat([torch.zeros(0, dtype=torch.int64), *units]), minlength=len(quiver.freedom))
