"""Rules of convolutions in every dimension, with groups and transposed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from teleport._quiver.quiver import Freedom
from tests.teleport.networks import Calls
from tests.teleport.teleported import error, free


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_channels_of_a_convolution_are_free_on_both_sides(spatial, kind, groups):
    torch.manual_seed(0)
    make = getattr(nn, f"{kind}{spatial}d")
    layers = {"first": make(2, 4, 2), "middle": make(4, 6, 2, groups=groups), "last": make(6, 2, 1)}
    model = Calls(lambda net, x: net.last(net.middle(net.first(x).relu()).relu()), **layers).double()
    difference, quiver = error(model, torch.randn(3, 2, *[4] * spatial).double())
    assert difference < 1e-9
    assert free(quiver) == {"first.weight": 1.0, "middle.weight": 1.0, "last.weight": 0.0}
    assert len(set(quiver.channel_classes["middle.weight"].flatten().tolist())) == 6
    assert quiver.kinds["middle.weight"] == f"{kind}{spatial}d".lower().replace("convt", "conv_t")


@pytest.mark.parametrize("kind", ["AvgPool", "AdaptiveAvgPool", "MaxPool", "AdaptiveMaxPool"])
@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_a_mean_passes_factors_of_either_sign_and_a_maximum_positive_ones(spatial, kind):
    torch.manual_seed(0)
    make = getattr(nn, f"Conv{spatial}d")
    layers = {"first": make(2, 4, 2), "last": make(4, 2, 1), "pool": getattr(nn, f"{kind}{spatial}d")(2)}
    model = Calls(lambda net, x: net.last(net.pool(net.first(x))), **layers).double()
    difference, quiver = error(model, torch.randn(3, 2, *[5] * spatial).double())
    assert difference < 1e-9
    freedom = quiver.freedom[quiver.channel_classes["first.weight"]]
    assert freedom.tolist() == [Freedom.POSITIVE if "Max" in kind else Freedom.NONZERO] * 4
