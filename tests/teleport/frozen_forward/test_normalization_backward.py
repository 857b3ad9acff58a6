"""Adjoints of normalizations' backward passes against autograd's second derivative."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from teleport._frozen_forward.normalization_backward import simplify_normalizations
from tests.teleport.backward_passes import assert_second_derivatives

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
def test_second_derivatives_match_autograd(name, below):
    """Of ``1/2 |g|^2`` by a factor that enters the backward pass alone, with the forward pass frozen."""
    make, shape = NORMS[name]
    norm = make().double().eval()
    for tensor in [*norm.parameters(), *norm.buffers()]:
        if tensor.is_floating_point():
            nn.init.uniform_(tensor.data, 0.5, 1.5)
    inputs = torch.randn(shape, dtype=torch.float64, requires_grad=below)
    over = [*norm.parameters(), *([inputs] if below else [])]
    assert_second_derivatives(simplify_normalizations, lambda: norm(inputs), over)
