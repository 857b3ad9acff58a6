"""The ascent problem of one batch in the null space of the layer inputs, and its version with a frozen forward pass.

An ascent problem is what a step rule needs: the loss on the batch, the parameters that it may move, the cap on the
gradient norm and the projection onto the null space. The frozen forward pass (``_frozen_forward``) evaluates the same
gradient norm without running the model again. Source: Wu et al. 2025, equations 11 to 16.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from teleport._engine.ascent import Ascent
from teleport._engine.batch_loss import BatchLoss, Point
from teleport._engine.contract import StepMonitor
from teleport._engine.landing import Shape
from teleport._engine.report import BatchReport, StepRecord
from teleport._engine.shortest import Metric
from teleport._engine.statuses import Stopped
from teleport._frozen_forward.frozen_forward import FrozenForward
from teleport._frozen_forward.projected_products import Projection
from teleport._frozen_forward.recorded_graph import GraphRecorder
from teleport._null_space.layer_statistics import LayerStatistics, NullSpaces

AGREEMENT = 4.0
"""Largest relative difference of two gradient norms that agree, in units of the root of the precision."""

Project = Callable[[Sequence[Tensor]], list[Tensor]]
"""Projects one tensor per parameter onto the null space; zero if no layer of the parameter has a null space."""


@dataclass(frozen=True)
class AscentProblem:
    """The problem that a step rule solves on one batch.

    Attributes:
        batch: the number of the batch in the event.
        loss: the loss on the batch, with its gradients over the parameters that the gradient norm is over.
        parameters: those that may move.
        cap: the largest gradient norm.
        start: loss and gradients at the current parameters, or ``None`` if they have not been computed.
        project: projects the gradients of ``loss``, one tensor per parameter, onto the null space.
        project_drawn: projects tensors that are no gradients (those of a frozen forward pass are projected in part).
        monitor: called at the start and after each step; the event ends there if it returns ``True``.
        shape: of the norm along the lines of earlier batches.
        metric: of moves in the null space, if held-out batches are given.
    """

    batch: int
    loss: BatchLoss
    parameters: list[nn.Parameter]
    cap: float
    start: Point | None
    project: Project
    project_drawn: Project
    monitor: StepMonitor
    shape: Shape
    metric: Metric | None = None


StepRule = Callable[[AscentProblem], Ascent]
"""Moves the parameters of an ascent problem in place. If it has none, the rule only evaluates the current point."""


def projection(
    null_spaces: NullSpaces,
    parameters: Sequence[nn.Parameter],
    statistics: LayerStatistics,
    projected: Collection[str] | None = None,
) -> Project:
    """The projection ``pi_l(G_l)`` of each layer ``l`` (Wu et al. 2025, equations 11 to 16).

    Args:
        null_spaces: the layers that have a null space, with the subspaces that their inputs span.
        parameters: of these layers, in the order of the tensors to be projected.
        statistics: records the surviving share of each gradient.
        projected: with a frozen forward pass the names of the layers whose gradients come already projected. The
            gradients of the other layers are then not whole, so no share is recorded. ``None`` for whole gradients.
    """
    whole, projected = projected is None, projected or ()
    done = {block.parameter for layer, _ in null_spaces if layer.name in projected for block in layer.blocks}
    remaining = [(layer, subspace) for layer, subspace in null_spaces if layer.name not in projected]

    def project(tensors: Sequence[Tensor]) -> list[Tensor]:
        given = dict(zip(parameters, tensors, strict=True))
        if isinstance(tensors, list):
            tensors.clear()  # each is freed once it is projected
        left = Counter(block.parameter for layer, _ in remaining for block in layer.blocks)
        results = {p: g for p, g in given.items() if p in done}
        for layer, subspace in remaining:
            own = {block.parameter: with_strides(given, block.parameter) for block in layer.blocks}
            matrix, part = layer.gather(own), layer.projected(own, subspace.project)
            for block in layer.blocks:
                if block.parameter not in results:
                    results[block.parameter] = torch.zeros_like(block.parameter, requires_grad=False)
            if statistics.above_rounding(layer, matrix, part, record=whole):
                layer.scatter(part, results)
            left.subtract(block.parameter for block in layer.blocks)
            for block in layer.blocks:
                if not left[block.parameter]:
                    given.pop(block.parameter, None)
        return [results[parameter] for parameter in parameters]

    return project


def freeze_forward(
    problem: AscentProblem, graph: GraphRecorder, null_spaces: NullSpaces, statistics: LayerStatistics
) -> AscentProblem:
    """``problem`` with the forward pass frozen as in ``graph``, the recorded graph of the evaluation of its start.

    Raises:
        Untraceable: the recorded graph does not show how the gradient norm depends on the parameters that may move.
    """
    assert problem.start is not None
    frozen = FrozenForward(problem.loss, graph, problem.start, problem.parameters)
    projected = set()
    for layer, subspace in null_spaces:
        above_rounding = partial(statistics.above_rounding, layer, record=False)
        if frozen.project_by_gram(layer, Projection(layer, subspace, above_rounding)):
            projected.add(layer.name)
    project = projection(null_spaces, problem.parameters, statistics, projected)
    return dataclasses.replace(problem, loss=frozen, start=frozen.point(True), project=project)


def agree(frozen: Point | None, whole: Point, parameters: Sequence[nn.Parameter]) -> bool:
    """Whether the gradient norms of a point with a frozen forward pass and of the model's agree, up to rounding.

    Agreement at the start and after the steps is what is needed: the direction is the derivative of the frozen norm.

    Args:
        frozen, whole: both at the same parameters.
        parameters: those that move; the tolerance is the root of their precision.
    """
    assert frozen is not None
    eps = max(torch.finfo(parameter.dtype).eps for parameter in parameters)
    return bool(abs(frozen.norm - whole.norm) <= AGREEMENT * eps**0.5 * whole.norm)


def above_cap(point: Point, monitor: StepMonitor) -> BatchReport:
    """The report of a batch whose gradient norm is at the cap before the first step."""
    loss, norm = float(point.loss), point.norm
    record = StepRecord(0, loss, norm)
    stopped = Stopped.CALLBACK if monitor(record) else Stopped.ABOVE_CAP
    return BatchReport(loss, loss, norm, norm, steps=0, stopped=stopped, trace=[record])


def with_strides(given: Mapping[nn.Parameter, Tensor], parameter: nn.Parameter) -> Tensor:
    """The tensor of ``parameter`` with the parameter's strides, which the layer's blocks rely on."""
    tensor = given[parameter]
    return tensor if tensor.stride() == parameter.stride() else torch.empty_like(parameter).copy_(tensor)
