"""Second derivatives through one backward pass, by a rewrite of the backward graph and by autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from teleport._engine.batch_loss import BatchLoss
from teleport._frozen_forward.backward_graph import BackwardGraph, backward_graph_of
from teleport._frozen_forward.frozen_forward import recorded


class Weighted(torch.autograd.Function):
    """The sum of its input with the gradient ``sin factor`` instead of 1, so that the backward pass has a parameter."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return inputs.sum()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return outer * factor.sin(), None


def assert_second_derivatives(
    simplify: Callable[[BackwardGraph], None],
    output: Callable[[], Tensor],
    over: Sequence[Tensor],
    moving: Sequence[nn.Parameter] = (),
) -> None:
    """Compare derivatives of ``1/2 |g|^2`` by a factor of the gradient of ``output`` and by the ``moving`` parameters.

    Args:
        simplify: the rewrite; it must change the graph.
        output: the forward pass, whose products of moving parameters are frozen.
        over: the tensors of the gradients g.
        moving: parameters that do not change ``output`` beyond the last product.
    """
    factor = nn.Parameter(torch.randn_like(output()))
    moved = [factor, *moving]
    objective = BatchLoss(lambda: Weighted.apply(output(), factor), over)
    start, record = recorded(objective)
    graph = backward_graph_of(record, start.gradients, moved)
    before = [node.func for node in graph.nodes]
    simplify(graph)
    assert [node.func for node in graph.nodes] != before
    values = graph.run({parameter: parameter for parameter in moved})
    half = sum((values[end].square().sum() for end in graph.gradients if isinstance(end, int)), torch.zeros(())) / 2
    found = torch.autograd.grad(half, moved)
    expected = objective.ascent_direction(objective.point(True), moved)
    for one, other in zip(found, expected, strict=True):
        assert other.any()
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
