"""Adjoints of normalisations' backward passes against autograd's second derivative."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from teleport.ascent import Objective
from teleport.normalised import simplify_normalisations
from teleport.residual import residual_of

NORMS = {
    "layer": (lambda: nn.LayerNorm(5), (3, 4, 5)),
    "layer over two axes": (lambda: nn.LayerNorm((4, 5)), (3, 4, 5)),
    "layer without weight": (lambda: nn.LayerNorm(5, elementwise_affine=False), (3, 4, 5)),
    "layer without bias": (lambda: nn.LayerNorm(5, bias=False), (3, 5)),
    "batch": (lambda: nn.BatchNorm1d(5), (3, 5)),
    "batch of sequences": (lambda: nn.BatchNorm1d(5), (3, 5, 4)),
    "batch of images": (lambda: nn.BatchNorm2d(5), (3, 5, 4, 2)),
    "batch without weight": (lambda: nn.BatchNorm2d(5, affine=False), (3, 5, 4, 2)),
}


CASES = [(name, below) for name in NORMS for below in (True, False) if below or "without weight" not in name]
"""With and without parameters below; something must have a gradient."""


@pytest.mark.parametrize(("name", "below"), CASES)
def test_second_derivatives_are_autograds(name, below):
    """Of ``1/2 |g|^2`` by a factor that enters the backward pass alone, with the forward pass held."""
    make, shape = NORMS[name]
    norm = make().double().eval()
    for held in [*norm.parameters(), *norm.buffers()]:
        if held.is_floating_point():
            nn.init.uniform_(held.data, 0.5, 1.5)
    inputs = torch.randn(shape, dtype=torch.float64, requires_grad=below)
    factor = nn.Parameter(torch.randn(shape, dtype=torch.float64))
    over = [*norm.parameters(), *([inputs] if below else [])]
    objective = Objective(lambda: _Weighted.apply(norm(inputs), factor), over)
    start, tape = objective.recorded()
    residual = residual_of(tape, start.gradients, [factor])
    before = [call.func for call in residual.calls]
    simplify_normalisations(residual)
    assert [call.func for call in residual.calls] != before
    held = residual.run({factor: factor})
    half = sum((held[end].square().sum() for end in residual.gradients if isinstance(end, int)), torch.zeros(())) / 2
    (found,) = torch.autograd.grad(half, [factor])
    (expected,) = objective.ascent_direction(start, [factor])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


class _Weighted(torch.autograd.Function):
    """The sum of its input, whose gradient is said to be ``sin factor``, so that the backward pass has a parameter."""

    @staticmethod
    def forward(ctx, inputs, factor):
        ctx.save_for_backward(factor)
        return inputs.sum()

    @staticmethod
    def backward(ctx, outer):
        (factor,) = ctx.saved_tensors
        return outer * factor.sin(), None
