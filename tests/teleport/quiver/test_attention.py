"""The rule of attention: each sum is over positions, which therefore share their factors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.teleport.networks import Calls, weight
from tests.teleport.teleported import draw, error, free

SCALED = {
    "queries": lambda net, x: F.scaled_dot_product_attention(net.q(x) * net.scale, net.k(x), net.v(x)),
    "keys": lambda net, x: F.scaled_dot_product_attention(net.q(x), net.k(x) * net.scale, net.v(x)),
    "queries and keys": lambda net, x: F.scaled_dot_product_attention(
        net.q(x) * net.scale, net.k(x) * net.other, net.v(x)
    ),
    "values": lambda net, x: F.scaled_dot_product_attention(net.q(x), net.k(x), net.v(x) * net.scale),
}


@pytest.mark.parametrize("name", SCALED)
def test_positions_with_scales_of_their_own(name):
    torch.manual_seed(0)
    layers = {each: nn.Linear(5, 4) for each in "qkv"} | {"last": nn.Linear(4, 2), "scale": weight(6, 1)}
    layers |= {"other": weight(6, 1)} if name == "queries and keys" else {}
    model = Calls(lambda net, x: net.last(SCALED[name](net, x)), **layers).double()
    difference, quiver = error(model, torch.randn(3, 6, 5).double())
    assert difference < 1e-9
    assert [free(quiver)[f"{each}.weight"] for each in "qkv"] == [1.0, 1.0, 1.0]


SCORES = {
    "scaled_dot_product_attention": F.scaled_dot_product_attention,
    "matmul": lambda q, k, v: (q @ k.mT).softmax(-1) @ v,
    "einsum": lambda q, k, v: torch.einsum("bij,bjc->bic", torch.einsum("bic,bjc->bij", q, k).softmax(-1), v),
}


@pytest.mark.parametrize("name", SCORES)
def test_each_channel_of_a_query_has_a_factor_that_its_key_inverts(name):
    torch.manual_seed(0)
    layers = {each: nn.Linear(5, 4) for each in "qkv"} | {"last": nn.Linear(4, 2)}
    model = Calls(lambda net, x: net.last(SCORES[name](net.q(x), net.k(x), net.v(x))), **layers).double()
    difference, quiver = error(model, torch.randn(3, 6, 5).double())
    assert difference < 1e-9
    assert [free(quiver)[f"{each}.weight"] for each in "qkv"] == [1.0, 1.0, 1.0]
    classes = [quiver.channel_classes[f"{each}.weight"] for each in "qkv"]
    assert [len(set(each.tolist())) for each in classes] == [4, 4, 4]
    tau = draw(quiver)
    torch.testing.assert_close(tau[classes[0]] * tau[classes[1]], torch.ones(4).double(), rtol=1e-12, atol=0)
