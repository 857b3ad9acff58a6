"""Second derivatives through one backward pass, by a rule of the held forward pass and by autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from teleport._engine.ascent import BatchLoss
from teleport._frozen_forward.backward_graph import BackwardGraph, backward_graph_of
from teleport._frozen_forward.frozen_forward import recorded


class Weighted(torch.autograd.Function):
    """The sum of its input, whose gradient is said to be ``sin factor``, so that the backward pass has a parameter."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return inputs.sum()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return outer * factor.sin(), None


def assert_autograds(
    simplify: Callable[[BackwardGraph], None],
    output: Callable[[], Tensor],
    over: Sequence[Tensor],
    moving: Sequence[nn.Parameter] = (),
) -> None:
    """Of ``1/2 |g|^2`` by a factor of the gradient of ``output``, and by what is ``moving`` beside it.

    Args:
        simplify: the rule; it must find something to do.
        output: the forward pass, whose products of moving parameters are held.
        over: what the gradients are of.
        moving: parameters that do not change ``output`` beyond the last product.
    """
    factor = nn.Parameter(torch.randn_like(output()))
    moved = [factor, *moving]
    objective = BatchLoss(lambda: Weighted.apply(output(), factor), over)
    start, tape = recorded(objective)
    residual = backward_graph_of(tape, start.gradients, moved)
    before = [call.func for call in residual.calls]
    simplify(residual)
    assert [call.func for call in residual.calls] != before
    held = residual.run({parameter: parameter for parameter in moved})
    half = sum((held[end].square().sum() for end in residual.gradients if isinstance(end, int)), torch.zeros(())) / 2
    found = torch.autograd.grad(half, moved)
    expected = objective.ascent_direction(start, moved)
    for one, other in zip(found, expected, strict=True):
        assert other.any()
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
