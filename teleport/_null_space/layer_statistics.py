"""Layer statistics of a null-space event: ranks, remaining gradient shares, changes, and why a layer did not move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from teleport._engine.batch_loss import NOTHING
from teleport._engine.layer_reports import NullSpaceLayerReport
from teleport._engine.parameter_statistics import relative_change
from teleport._engine.report import BatchReport
from teleport._processes.group import ALONE, Group
from teleport._spaces.norms import norm_of
from teleport._spaces.representation import Representation
from teleport._spaces.subspace import Subspace
from teleport._tracing.layer_tracer import TracedLayers
from teleport._tracing.layers import Layer

INPUTS_WITHOUT_PARAMETERS = (
    "its inputs depend on no parameter: the objective's gradient lies in their span, so its projection is zero"
)

ROUNDING = 16.0
"""Relative rounding error of a gradient, in units of its precision. Projections below it count as zero."""

NullSpaces = list[tuple[Layer, Subspace]]
"""The layers that have null dimensions, each with the subspace that its inputs span."""


class LayerStatistics:
    """The layer reports of one event, filled batch by batch.

    Args:
        start: the values of parameters before the event; layers of others are copied when they are first seen.
        group: of processes that may hold rows of the layers' matrices.
    """

    def __init__(self, start: Mapping[nn.Parameter, Tensor] = NOTHING, group: Group = ALONE) -> None:
        self._group = group
        self._start = start
        self._reports: dict[str, NullSpaceLayerReport] = {}
        self._layers: dict[str, Layer] = {}
        self._before: dict[str, Tensor | None] = {}  # the layers' matrices then; None if they are those at the start
        self._recorded: set[str] = set()  # layers whose surviving share was recorded for the current batch
        self._projected: set[str] = set()  # layers whose gradient was projected
        self._above_rounding: set[str] = set()  # those whose projected gradient was above rounding at least once

    def open(self, traced: TracedLayers, threshold: float) -> NullSpaces:
        """Decompose the traced representations, which are freed; the result has the layers with null dimensions."""
        self.note(traced)
        subspaces: dict[int, Subspace] = {}  # layers with one representation share one decomposition
        null_spaces = []
        for name, layer in traced.layers.items():
            report = self._report(name, layer)
            representation = traced.representations.pop(name)  # freed once it is decomposed
            if representation is None:
                report.reason = report.reason or INPUTS_WITHOUT_PARAMETERS
                continue
            if not representation.finite:
                report.reason = report.reason or "its inputs are not finite"
            subspace = _shared_subspace(subspaces, representation, threshold)
            report.ranks.append(subspace.rank)
            if subspace.null_dimension:
                null_spaces.append((layer, subspace))
        return null_spaces

    def note(self, traced: TracedLayers) -> None:
        """Enter the traced layers in the report, without a decomposition."""
        for name, reason in traced.pinned.items():
            self._reports.setdefault(name, NullSpaceLayerReport(name, "parameter", 0)).reason = reason
        for name, layer in traced.layers.items():
            self._report(name, layer)

    def next_batch(self) -> None:
        """Record the surviving shares again, those of the next batch."""
        self._recorded.clear()

    def above_rounding(self, layer: Layer, matrix: Tensor, projected: Tensor, record: bool = True) -> bool:
        """Whether the projection ``projected`` of ``matrix`` is more than rounding.

        With ``record``, if ``matrix`` is the whole gradient, the surviving share of a batch's first step is recorded:
        the squared norm of the projection over that of the gradient.
        """
        self._projected.add(layer.name)
        whole, left = self._group.lengths(norm_of(matrix), norm_of(projected))
        share = (left / whole) ** 2 if whole else 0.0
        if record and layer.name not in self._recorded:
            self._recorded.add(layer.name)
            self._reports[layer.name].surviving.append(share)
        real = not share <= (ROUNDING * torch.finfo(matrix.dtype).eps) ** 2
        if real:
            self._above_rounding.add(layer.name)
        return real

    def close(self, batches: Iterable[BatchReport]) -> list[NullSpaceLayerReport]:
        """The layer reports, with each layer's relative change or the reason why it has none.

        Args:
            batches: the batch reports of the event.
        """
        ends = ", ".join(sorted({batch.stopped for batch in batches}))
        for name, before in self._before.items():
            report = self._reports[name]
            now = _matrices(self._layers[name])
            if before is None:
                before = self._layers[name].gather(self._start)
            changed = self._group.anywhere(not torch.equal(before, now))
            report.relative_change = relative_change(before, now, self._group) if changed else 0.0
            if report.relative_change:
                report.reason = ""  # of another batch
            elif not report.reason:
                report.reason = self._why_unchanged(report, ends)
        return list(self._reports.values())

    def _why_unchanged(self, report: NullSpaceLayerReport, ends: str) -> str:
        if report.ranks and not any(report.null_dimensions):
            return f"its inputs span all {report.dimension} dimensions"
        if report.name in self._projected and report.name not in self._above_rounding:
            return "the projection of the objective's gradient is zero up to rounding"
        return f"no step was taken or kept ({ends})"

    def _report(self, name: str, layer: Layer) -> NullSpaceLayerReport:
        if name not in self._layers:
            self._layers[name] = layer
            self._before[name] = None if _as_at(self._start, layer) else _matrices(layer)
            self._reports[name] = NullSpaceLayerReport(name, layer.kind, layer.dimension * layer.groups)
        return self._reports[name]


def _shared_subspace(known: dict[int, Subspace], representation: Representation, threshold: float) -> Subspace:
    key = id(representation)
    if key not in known:
        known[key] = representation.subspace(threshold)
    return known[key]


def _as_at(start: Mapping[nn.Parameter, Tensor], layer: Layer) -> bool:
    """Whether the parameters of a layer have the values of ``start``."""
    parameters = {block.parameter for block in layer.blocks}
    return all(each in start and torch.equal(each.detach(), start[each]) for each in parameters)


@torch.no_grad()
def _matrices(layer: Layer) -> Tensor:
    """A copy of the layer's current matrices."""
    return layer.gather({block.parameter: block.parameter.detach() for block in layer.blocks}).clone()
