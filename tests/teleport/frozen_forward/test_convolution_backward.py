"""Adjoints of convolutions' backward passes against autograd's second derivative."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from teleport._frozen_forward.convolution_backward import simplify_convolutions
from tests.teleport.backward_passes import assert_second_derivatives

CONVOLUTIONS = {
    "plain": (lambda: nn.Conv2d(3, 4, 3), (2, 3, 6, 5)),
    "without bias": (lambda: nn.Conv2d(3, 4, 3, padding=1, bias=False), (2, 3, 6, 5)),
    "strided and dilated": (lambda: nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=2), (2, 3, 9, 8)),
    "in groups": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), (2, 4, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (2, 4, 5, 5)),
    "of sequences": (lambda: nn.Conv1d(3, 4, 2, stride=2), (2, 3, 7)),
    "of volumes": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 4, 3, 3)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1), (2, 3, 4, 5)),
    "transposed in groups": (lambda: nn.ConvTranspose2d(4, 6, 2, groups=2), (2, 4, 4, 5)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("below", [True, False], ids=["with layers below", "first"])
@pytest.mark.parametrize("moves", ["weight moves", "weight stays"])
def test_second_derivatives_match_autograd(name, below, moves):
    make, shape = CONVOLUTIONS[name]
    layer = make().double()
    inputs = torch.randn(shape, dtype=torch.float64, requires_grad=below)
    over = [*layer.parameters(), *([inputs] if below else [])]
    # the weight enters a backward pass only if there are layers below
    moving = [layer.weight] if moves == "weight moves" and below else []
    assert_second_derivatives(simplify_convolutions, lambda: layer(inputs), over, moving)


def test_bias_gradient_only():
    layer = nn.Conv2d(3, 4, 3).double()
    layer.weight.requires_grad_(False)
    inputs = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    assert_second_derivatives(simplify_convolutions, lambda: layer(inputs), [layer.bias])
