"""Backward passes of activations as products, against autograd's second derivative."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from teleport import NullSpace, UnsupportedModel
from teleport._frozen_forward.activation_backward import simplify_activations
from tests.teleport.backward_passes import assert_second_derivatives
from tests.teleport.networks import batches_of, cross_entropy

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu by tanh": partial(F.gelu, approximate="tanh"),
    "elu": partial(F.elu, alpha=0.7),
    "selu": F.selu,
    "softplus": partial(F.softplus, beta=2),
    "logsigmoid": F.logsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "silu": F.silu,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_second_derivatives_match_autograd(name):
    inputs = (2 * torch.randn(3, 4, 5, dtype=torch.float64)).requires_grad_()
    assert_second_derivatives(simplify_activations, lambda: ACTIVATIONS[name](inputs), [inputs])


class HardSigmoid(nn.Module):
    """Of other functions, which torch differentiates twice."""

    def forward(self, inputs):
        return F.relu6(inputs + 3) / 6


def test_hardsigmoid_moves_though_torch_does_not_differentiate_it_twice():
    """As the networks with its definition do. With a forward pass per step there is a sentence."""
    moved = []
    for activation in (nn.Hardsigmoid(), HardSigmoid()):
        torch.manual_seed(1)
        layers = nn.Linear(6, 24), activation, nn.Linear(24, 24), activation, nn.Linear(24, 3)
        model = nn.Sequential(*layers).double()
        report = NullSpace()(model, batches_of(2), cross_entropy)
        assert report.gradient_norm_after > 1.1 * report.gradient_norm_before
        moved.append([parameter.detach() for parameter in model.parameters()])
    for one, other in zip(*moved, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    with pytest.raises(UnsupportedModel, match="hardsigmoid_backward is not implemented"):
        NullSpace(forward="each")(nn.Sequential(*layers[:3], nn.Hardsigmoid(), layers[4]), batches_of(1), cross_entropy)
