"""Rules of functions that move elements: a channel's factor stays with its elements."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.teleport.networks import Calls
from tests.teleport.teleported import error, free

TURNED = {  # of [6, 4] or [2, 3, 4], back and forth
    "T": ((6, 5), lambda x: torch.relu(x.T).T),
    "mT": ((2, 3, 5), lambda x: torch.relu(x.mT).mT),
    "t": ((6, 5), lambda x: torch.relu(x.t()).t()),
    "transpose": ((2, 3, 5), lambda x: torch.relu(x.transpose(0, -1)).transpose(-1, 0)),
    "permute": ((2, 3, 5), lambda x: torch.relu(x.permute(2, 0, 1)).permute(1, 2, 0)),
    "movedim": ((2, 3, 5), lambda x: torch.relu(x.movedim(2, 0)).movedim(0, 2)),
}


@pytest.mark.parametrize("name", TURNED)
def test_turned_channels_have_a_factor_each(name):
    torch.manual_seed(0)
    shape, turned = TURNED[name]
    layers = {"first": nn.Linear(5, 4), "last": nn.Linear(4, 2)}
    model = Calls(lambda net, x: net.last(turned(net.first(x))), **layers).double()
    difference, quiver = error(model, torch.randn(shape).double())
    assert difference < 1e-9
    assert free(quiver)["first.weight"] == 1.0
    assert len(set(quiver.channel_classes["first.weight"].tolist())) == 4


ROLLS = {
    "of rows": (lambda x: x.roll(1, 0), 4),
    "of channels": (lambda x: x.roll(1, 1), 4),
    "of both": (lambda x: x.roll((1, 2), (0, 1)), 4),
    "of the flattened values": (lambda x: x.roll(3), None),
}


@pytest.mark.parametrize("name", ROLLS)
def test_a_rolled_value_takes_its_factor_along(name):
    rolled, channels = ROLLS[name]
    torch.manual_seed(0)
    layers = {"first": nn.Linear(5, 4), "last": nn.Linear(4, 2)}
    model = Calls(lambda net, x: net.last(rolled(net.first(x).relu())), **layers).double()
    difference, quiver = error(model, torch.randn(6, 5).double())
    assert difference < 1e-9
    assert channels is None or len(set(quiver.channel_classes["first.weight"].tolist())) == channels
