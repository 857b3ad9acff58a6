"""Keeps the books of a teleport: what each layer may do, what it did, and why it stayed."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from teleport._engine.parameter_statistics import relative_change
from teleport._engine.report import BatchReport, NullSpaceLayerReport
from teleport._spaces.norms import norm_of
from teleport._spaces.representation import Representation
from teleport._spaces.subspace import Subspace
from teleport._tracing.layer_tracer import TracedLayers
from teleport._tracing.layers import Layer

FACT_ONE = (
    "its inputs depend on no parameter, so that the objective's gradient lies in the space they span "
    "and nothing of it survives the projection"
)

ROUNDING = 16.0
"""Errors in a gradient that rounding explains, in units of its precision; its part in the null space must be more."""

Moving = list[tuple[Layer, Subspace]]
"""The layers that have null dimensions, with what their inputs span."""


class LayerStatistics:
    """The layer reports of one event, filled batch by batch."""

    def __init__(self) -> None:
        self._reports: dict[str, NullSpaceLayerReport] = {}
        self._layers: dict[str, Layer] = {}
        self._before: dict[str, Tensor] = {}  # the layers' matrices before the event
        self._noted: set[str] = set()  # layers whose surviving share was noted for the current batch
        self._survivors: set[str] = set()  # layers of whose gradient more than rounding ever survived

    def open(self, captured: TracedLayers, threshold: float) -> Moving:
        """Decompose what was captured, and give the layers that have null dimensions."""
        for name, reason in captured.pinned.items():
            self._reports.setdefault(name, NullSpaceLayerReport(name, "parameter", 0)).reason = reason
        subspaces: dict[int, Subspace] = {}  # layers with one representation share one decomposition
        moving = []
        for name, layer in captured.layers.items():
            report = self._report(name, layer)
            representation = captured.representations[name]
            if representation is None:
                report.reason = report.reason or FACT_ONE
                continue
            if not representation.finite:
                report.reason = report.reason or "its inputs are not finite"
            subspace = _shared_subspace(subspaces, representation, threshold)
            report.ranks.append(subspace.rank)
            if subspace.null_dimension:
                moving.append((layer, subspace))
        return moving

    def next_batch(self) -> None:
        """Note the surviving shares anew."""
        self._noted.clear()

    def survived(self, layer: Layer, matrix: Tensor, kept: Tensor, note: bool = True) -> bool:
        """Whether more than rounding survived the projection of ``matrix``.

        The share at a batch's first step is noted where ``matrix`` is the whole gradient (``note``).
        """
        whole = norm_of(matrix)
        share = (norm_of(kept) / whole) ** 2 if whole else 0.0
        if note and layer.name not in self._noted:
            self._noted.add(layer.name)
            self._reports[layer.name].surviving.append(share)
        real = not share <= (ROUNDING * torch.finfo(matrix.dtype).eps) ** 2
        if real:
            self._survivors.add(layer.name)
        return real

    def close(self, batches: Iterable[BatchReport]) -> list[NullSpaceLayerReport]:
        """Measure how far each layer went, and say why those stayed that did; ``batches`` are the event's."""
        ends = ", ".join(sorted({batch.stopped for batch in batches}))
        for name, before in self._before.items():
            report = self._reports[name]
            report.relative_change = relative_change(before.double(), _matrices(self._layers[name]).double())
            if report.relative_change:
                report.reason = ""  # of another batch
            elif not report.reason:
                report.reason = self._why_still(report, ends)
        return list(self._reports.values())

    def _why_still(self, report: NullSpaceLayerReport, ends: str) -> str:
        if report.ranks and not any(report.null_dimensions):
            return f"its inputs span all {report.dimension} dimensions"
        if report.surviving and report.name not in self._survivors:
            return "what survives of the objective's gradient is rounding"
        return f"no step was taken or kept ({ends})"

    def _report(self, name: str, layer: Layer) -> NullSpaceLayerReport:
        if name not in self._layers:
            self._layers[name] = layer
            self._before[name] = _matrices(layer)
            self._reports[name] = NullSpaceLayerReport(name, layer.kind, layer.dimension * layer.groups)
        return self._reports[name]


def _shared_subspace(known: dict[int, Subspace], representation: Representation, threshold: float) -> Subspace:
    key = id(representation)
    if key not in known:
        known[key] = representation.subspace(threshold)
    return known[key]


@torch.no_grad()
def _matrices(layer: Layer) -> Tensor:
    """A copy of the layer's matrices as they stand."""
    return layer.gather({block.parameter: block.parameter.detach() for block in layer.blocks}).clone()
