"""Rules of batched products: each batch entry has channels of its own, which the next product reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.teleport.networks import Calls, weight
from tests.teleport.teleported import error, free, quiver_of

MATRIX_PRODUCTS = {
    "bmm": lambda x, weights: torch.bmm(x, weights),
    "matmul": lambda x, weights: x @ weights,
    "reflected matmul": lambda x, weights: weights.__rmatmul__(x),
    "baddbmm": lambda x, weights: torch.baddbmm(torch.zeros((), dtype=x.dtype), x, weights, beta=0),
    "einsum": lambda x, weights: torch.einsum("bni,bio->bno", x, weights),
}


def experts(product: Any) -> nn.Module:
    """Two products with weights ``[3, 5, 4]`` and ``[3, 4, 2]``, one matrix per expert."""
    torch.manual_seed(0)
    return Calls(
        lambda net, x: product(product(x, net.up).relu(), net.down), up=weight(3, 5, 4), down=weight(3, 4, 2)
    ).double()


@pytest.mark.parametrize("name", MATRIX_PRODUCTS)
def test_each_matrix_of_a_batch_has_channels_of_its_own(name):
    model = experts(MATRIX_PRODUCTS[name])
    difference, quiver = error(model, torch.randn(3, 6, 5).double())
    assert difference < 1e-9
    made = quiver.scaled["up"].output_class.expand(3, 5, 4)
    assert torch.equal(made, made[:, :1].expand(3, 5, 4))
    assert len(set(made[:, 0].flatten().tolist()) - {0}) == 12
    assert torch.equal(quiver.scaled["down"].input_class.expand(3, 4, 2), made[:, 0, :, None].expand(3, 4, 2))


def test_one_input_of_a_batch_of_matrices():
    """The axis of the batch is the weight's alone."""
    model = experts(lambda x, weights: x @ weights)
    difference, quiver = error(model, torch.randn(6, 5).double())
    assert difference < 1e-9
    assert free(quiver) == {"up": 1.0, "down": 0.0}
    assert len(quiver.channel_classes["up"].unique()) == 12


@pytest.mark.parametrize("shape", [(4,), (1, 4), (3, 4), (1, 3, 4)])
def test_the_scale_of_a_batch_is_aligned_from_its_last_axis(shape):
    """A product ``[2, 3, 4] * shape``; what is read along the last axis alone has one factor per channel."""

    def forward(net: Any, x: Tensor) -> Tensor:
        return net.last((net.first(x).relu() * net.scale).relu())

    torch.manual_seed(0)
    model = Calls(forward, first=nn.Linear(5, 4), scale=weight(*shape), last=nn.Linear(4, 2)).double()
    difference, quiver = error(model, torch.randn(2, 3, 5).double())
    assert difference < 1e-9
    assert free(quiver) == {"first.weight": 1.0, "scale": 1.0, "last.weight": 0.0}
    scale = quiver.scaled["scale"]
    first, last = quiver.channel_classes["first.weight"], quiver.scaled["last.weight"].input_class.flatten()
    assert torch.equal(scale.input_class.expand(shape), first.expand(shape))
    assert torch.equal(scale.output_class.expand(shape), last.expand(shape))
    assert not set(first.tolist()) & set(last.tolist())


@pytest.mark.parametrize("gate_first", [True, False])
def test_of_a_value_and_a_smaller_gate_the_gate_is_pinned(gate_first):
    def forward(net: Any, x: Tensor) -> Tensor:
        gate, value = net.gate(x.mean(1, keepdim=True)), net.value(x)
        return net.last(gate * value if gate_first else value * gate)

    torch.manual_seed(0)
    model = Calls(forward, gate=nn.Linear(5, 4), value=nn.Linear(5, 4), last=nn.Linear(4, 2)).double()
    x = torch.randn(2, 3, 5).double()
    difference, quiver = error(model, x)
    assert difference < 1e-9
    assert free(quiver) == {"gate.weight": 0.0, "value.weight": 1.0, "last.weight": 0.0}
    assert "as a factor of another activation" in quiver_of(model, x).reasons["gate.weight"]
