"""What a walk in the null space of one batch stands on, and the same with the forward pass held."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from teleport._engine.ascent import Ascent, BatchLoss, Point
from teleport._engine.contract import StepMonitor
from teleport._frozen_forward.frozen_forward import FrozenForward
from teleport._frozen_forward.projected_products import Projection
from teleport._frozen_forward.recorded_graph import GraphRecorder
from teleport._null_space.layer_statistics import ROUNDING, LayerStatistics, Moving
from teleport._spaces.norms import inner

Project = Callable[[Sequence[Tensor]], list[Tensor]]
"""From a tensor a parameter to their parts in the null space, zero where no layer may move."""


@dataclass(frozen=True)
class AscentProblem:
    """What a walk on one batch stands on.

    Attributes:
        batch: its number in the event.
        loss: the loss on it, with its gradients over the parameters that the gradient norm is over.
        parameters: what may move.
        cap: the largest gradient norm.
        start: the point where the parameters stand, or ``None`` where it is not known yet.
        project: from a tensor a parameter to their parts in the null space, zero where no layer may move.
        monitor: to be told of the start and of each step; ``True`` ends the event there.
    """

    batch: int
    loss: BatchLoss
    parameters: list[nn.Parameter]
    cap: float
    start: Point | None
    project: Project
    monitor: StepMonitor


StepRule = Callable[[AscentProblem], Ascent]
"""Moves the parameters of a ground, in place; where there are none, it only looks at where they stand."""


def projection(
    moving: Moving,
    parameters: Sequence[nn.Parameter],
    statistics: LayerStatistics,
    projected: Collection[str] | None = None,
) -> Project:
    """``pi_l(G_l)`` for each layer (equations 11 to 16).

    With the forward pass held, the parts of the layers named in ``projected`` come as they are to be, and those of the
    others are not their whole gradients.
    """
    whole, projected = projected is None, projected or ()
    done = {block.parameter for layer, _ in moving if layer.name in projected for block in layer.blocks}
    left = [(layer, subspace) for layer, subspace in moving if layer.name not in projected]

    def project(tensors: Sequence[Tensor]) -> list[Tensor]:
        given = dict(zip(parameters, tensors, strict=True))
        made = {p: g if p in done else torch.zeros_like(p, requires_grad=False) for p, g in given.items()}
        for layer, subspace in left:
            matrix = layer.gather({block.parameter: _laid_out(given, block.parameter) for block in layer.blocks})
            kept = subspace.project(matrix)
            if statistics.survived(layer, matrix, kept, note=whole):
                layer.scatter(kept, made)
        return [made[parameter] for parameter in parameters]

    return project


def freeze_forward(
    problem: AscentProblem, tape: GraphRecorder, moving: Moving, statistics: LayerStatistics
) -> AscentProblem:
    """``problem`` with the forward pass held as it is on the ``tape``, which recorded the evaluation of its start.

    Raises:
        Untraceable: the tape does not say how the gradient norm depends on what moves.
    """
    assert problem.start is not None
    held = FrozenForward(problem.loss, tape, problem.start, problem.parameters)
    thin = set()
    for layer, subspace in moving:
        survived = partial(statistics.survived, layer, note=False)
        if held.project_by_gram(layer, Projection(layer, subspace, survived)):
            thin.add(layer.name)
    project = projection(moving, problem.parameters, statistics, thin)
    return dataclasses.replace(problem, loss=held, start=None, project=project)


def agree(held: AscentProblem, problem: AscentProblem) -> bool:
    """Whether both give the same gradient norm and the same direction, as far as the parameters' precision goes.

    What the whole gradient holds beside its part in the null space is projected away, but for rounding, which counts
    for ``problem`` and which ``held`` never has.
    """
    assert problem.start is not None
    point = held.loss.point(True)
    whole = problem.loss.ascent_direction(problem.start, problem.parameters)
    expected, found = problem.project(whole), held.project(held.loss.ascent_direction(point, problem.parameters))
    apart = _norm([one - other for one, other in zip(found, expected, strict=True)])
    eps = max(torch.finfo(parameter.dtype).eps for parameter in problem.parameters)
    same_norm = abs(point.norm - problem.start.norm) <= eps**0.5 * problem.start.norm
    return bool(same_norm and apart <= eps**0.5 * _norm(expected) + ROUNDING * eps * _norm(whole))


def _laid_out(given: Mapping[nn.Parameter, Tensor], parameter: nn.Parameter) -> Tensor:
    """A parameter's tensor with the strides of the parameter, which a layer's blocks count on."""
    tensor = given[parameter]
    return tensor if tensor.stride() == parameter.stride() else torch.empty_like(parameter).copy_(tensor)


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(inner(tensors, tensors).sqrt())
