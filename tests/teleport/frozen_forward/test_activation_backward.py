"""Backward passes of activations as products, against autograd's second derivative."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from teleport._frozen_forward.activation_backward import simplify_activations
from tests.teleport.backward_passes import assert_second_derivatives

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
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_second_derivatives_match_autograd(name):
    inputs = (2 * torch.randn(3, 4, 5, dtype=torch.float64)).requires_grad_()
    assert_second_derivatives(simplify_activations, lambda: ACTIVATIONS[name](inputs), [inputs])
