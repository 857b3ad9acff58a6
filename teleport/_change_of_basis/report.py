"""The report of a change of basis."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from torch import nn

from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.group_value import GroupChange
from teleport._engine.carriers import Carriers
from teleport._engine.layer_reports import ChannelReport
from teleport._engine.report import FactorReport
from teleport._symmetry_groups.symmetries import Symmetries
from teleport._tracing.value_reads import ValueRead

READS = 3
"""Reads of values that the text of a report shows."""


class ChangeOfBasisReport(FactorReport):
    """What a change of basis did.

    Without a loss the losses and norms are not numbers, and ``difference`` is how far the outputs moved, relative to
    the largest; with a loss it is ``None``. ``change`` is what acted.
    """

    change: BasisChange | GroupChange
    difference: float | None = None
    _derived: ClassVar[tuple[str, ...]] = ("difference", "channels", "pins", "value_reads")
    _model: nn.Module | None = None

    @property
    def model(self) -> nn.Module | None:
        """What computes the function now: the given model, or its teleported form if activations need it."""
        return self._model

    @model.setter
    def model(self, model: nn.Module) -> None:
        self._model = model

    @property
    def channels(self) -> tuple[int, int, int]:
        """How many channels of all layers are free, shared and pinned."""
        layers = self._channel_reports
        return (
            sum(each.free for each in layers),
            sum(each.shared for each in layers),
            sum(each.pinned for each in layers),
        )

    @property
    def value_reads(self) -> list[str]:
        """Where the model's code reads values, on which its branches may depend: the change keeps the function where
        they are the same."""
        return [str(each) for each in self._reads]

    @property
    def pins(self) -> dict[str, int]:
        """Reason -> how many channels it pins; the pinned channels of a layer go by the reason of the first one."""
        pins: Counter[str] = Counter()
        for each in self._channel_reports:
            if each.pinned:
                pins[each.reason] += each.pinned
        return dict(pins)

    @property
    def _reads(self) -> list[ValueRead]:
        change = getattr(self, "change", None)
        return change.quiver.value_reads if isinstance(change, BasisChange) else []

    @property
    def _channel_reports(self) -> list[ChannelReport]:
        return [each for each in self.layers if isinstance(each, ChannelReport)]

    def _headline(self) -> list[str]:
        free, shared, pinned = self.channels
        lines = [*super()._headline(), f"  channels: {free} free, {shared} shared, {pinned} pinned"]
        reads = self.value_reads
        lines += [f"  {each}" for each in reads[:READS]]
        if len(reads) > READS:
            lines.append(f"  ... and {len(reads) - READS} more reads of values: report.value_reads")
        return (
            lines if self.difference is None else [*lines, f"  outputs moved by {self.difference:.2e} of the largest"]
        )


class GroupReport(ChangeOfBasisReport):
    """What an element of the groups that :func:`teleport.find_symmetries` finds did; ``symmetries`` are these groups.

    The move is no mere factors (``group`` is ``None``); :func:`teleport.transport_state` takes the report itself.
    """

    symmetries: Symmetries

    @property
    def carriers(self) -> Carriers | None:
        """How the state of an optimizer follows the move of each parameter."""
        change = getattr(self, "change", None)
        return change.carriers(self.model) if isinstance(change, GroupChange) and self.model is not None else None

    @property
    def _reads(self) -> list[ValueRead]:
        return self.symmetries.value_reads

    def _headline(self) -> list[str]:
        counts = "  channels: "
        head = str(self.symmetries).partition("\n")[0]
        if self.symmetries.folded:
            head += f"\n  folded ({len(self.symmetries.folded)}): {', '.join(self.symmetries.folded)}"
        return [head if line.startswith(counts) else line for line in super()._headline()]
