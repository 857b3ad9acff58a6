"""Keeps the books of a null-space teleport: what each layer was allowed, what it did, and why it stayed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from teleport.capture import Capture, Layer
from teleport.report import LayerReport
from teleport.representation import Representation
from teleport.subspace import Subspace

FACT_ONE = (
    "its inputs depend on no parameter, so that the objective's gradient lies in the space they span "
    "and nothing of it survives the projection"
)


class Ledger:
    """The layer reports of one event, filled batch by batch."""

    def __init__(self, named_parameters: Mapping[str, nn.Parameter]) -> None:
        self._named = {name: p for name, p in named_parameters.items() if p.requires_grad}
        self._reports: dict[str, LayerReport] = {}
        self._layers: dict[str, Layer] = {}
        self._before: dict[str, Tensor] = {}  # the layers' matrices before the event
        self._opened: set[str] = set()  # layers whose surviving share was noted for the current batch

    def open(self, captured: Capture, threshold: float) -> list[tuple[Layer, Subspace]]:
        """Start a batch: decompose what was captured, and give the layers that have null dimensions."""
        self._opened.clear()
        for name, reason in captured.pinned.items():
            self._reports.setdefault(name, LayerReport(name, "parameter", 0)).reason = reason
        subspaces: dict[int, Subspace] = {}  # layers with one representation share one decomposition
        moving = []
        for name, layer in captured.layers.items():
            report = self._report(name, layer)
            if layer.representation is None:
                report.reason = report.reason or FACT_ONE
                continue
            subspace = _shared_subspace(subspaces, layer.representation, threshold)
            report.ranks.append(subspace.rank)
            if subspace.null_dimension:
                moving.append((layer, subspace))
        return moving

    def survived(self, layer: Layer, matrix: Tensor, kept: Tensor) -> None:
        """Note the share of the objective's gradient that survived the projection, at a batch's first step."""
        if layer.name not in self._opened:
            self._opened.add(layer.name)
            whole = float(matrix.double().square().sum())
            share = float(kept.double().square().sum()) / whole if whole else 0.0
            self._reports[layer.name].surviving.append(share)

    def close(self) -> list[LayerReport]:
        """Measure how far each layer went, and say why those stayed that did."""
        for name, before in self._before.items():
            report = self._reports[name]
            after = _matrices(self._layers[name])
            scale = float(before.norm())
            report.relative_change = float((after - before).norm()) / (scale or 1.0)
            if report.relative_change == 0 and not report.reason:
                report.reason = self._why_still(report)
        return list(self._reports.values())

    def _why_still(self, report: LayerReport) -> str:
        if report.ranks and not any(report.null_dimensions):
            return f"its inputs span all {report.dimension} dimensions"
        if report.surviving and not any(report.surviving):
            return "the objective's gradient has no part in the null space"
        return "no step was taken or kept"

    def _report(self, name: str, layer: Layer) -> LayerReport:
        if name not in self._layers:
            self._layers[name] = layer
            self._before[name] = _matrices(layer)
            self._reports[name] = LayerReport(name, layer.kind, layer.dimension * layer.groups)
        return self._reports[name]


def _shared_subspace(known: dict[int, Subspace], representation: Representation, threshold: float) -> Subspace:
    key = id(representation)
    if key not in known:
        known[key] = representation.subspace(threshold)
    return known[key]


@torch.no_grad()
def _matrices(layer: Layer) -> Tensor:
    """A float64 copy of the layer's matrices as they stand."""
    return layer.gather({block.parameter: block.parameter.detach() for block in layer.blocks}).double().clone()
