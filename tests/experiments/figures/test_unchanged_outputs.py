"""Channels counted by hand and outputs compared, on small networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from experiments.figures.unchanged_outputs import replace_constants, teleport_once


class Small(nn.Module):
    """6 channels that enter a batch norm, the norm's 6, which enter ReLU, 5 that enter tanh, 4 outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.second, self.head = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x):
        return self.head(torch.tanh(self.second(F.relu(self.norm(self.first(x))).mean((2, 3)))))


@pytest.fixture
def small():
    torch.manual_seed(0)
    model, inputs = Small(), torch.randn(4, 3, 8, 8)
    replace_constants(model, inputs)
    return model, inputs


def test_channels_are_counted_by_what_becomes_of_them(small):
    in_place = teleport_once(*small, "in place", "intra", 0.9, 0)
    assert {key: in_place[key] for key in ("channels", "free", "shared", "pinned")} == {
        "channels": 17,  # the four outputs are none of them
        "free": 6,
        "shared": 0,
        "pinned": 11,
    }
    assert in_place["pinned_by"] == "batch_norm 6, tanh 5"
    teleported = teleport_once(*small, "teleported activations", "inter", 0.9, 0)
    assert (teleported["free"], teleported["pinned_by"]) == (11, "batch_norm 6")


def test_the_move_is_that_of_the_weights(small):
    model, inputs = small
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    found = teleport_once(model, inputs, "in place", "intra", 0.5, 3)
    after = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert found["moved"] == pytest.approx(((after - before).norm() / after.norm()).item(), rel=1e-5)
    assert 0 < found["difference"] < 1e-5


def test_settling_leaves_no_parameter_constant_and_scales_signals_to_one():
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 4)), torch.randn(7, 6)
    nn.init.zeros_(model[1].weight)
    replace_constants(model, inputs)
    assert not [name for name, each in model.named_parameters() if each.min() == each.max()]
    assert ((model[0].weight > 0.5) & (model[0].weight < 1.5)).all()
    assert not model.training

    network, images = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)).double(), torch.randn(4, 3, 8, 8).double()
    replace_constants(network, images)
    normed = (network(images) - network[1].bias[:, None, None]) / network[1].weight[:, None, None]
    assert normed.square().mean().item() == pytest.approx(1, rel=1e-3)
