"""Rules of elementwise choices and quotients: which values beside a channel keep its factor free."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.teleport.networks import Calls
from tests.teleport.teleported import error, free

CHOICES = {
    "masked_fill": lambda x, mask, value: x.masked_fill(mask, value),
    "masked_fill_": lambda x, mask, value: x.clone().masked_fill_(mask, value),
    "where, of a value": lambda x, mask, value: torch.where(mask, value, x),
    "where, or a value": lambda x, mask, value: torch.where(mask, x, value),
}


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", [0.0, -1.0, torch.tensor(-1.0).double()], ids=["0", "-1", "tensor"])
def test_a_choice_keeps_its_channels_free_beside_zero_alone(name, value):
    torch.manual_seed(0)
    mask = torch.arange(24).reshape(6, 4) % 3 == 0
    layers = {"first": nn.Linear(5, 4), "last": nn.Linear(4, 2)}
    model = Calls(lambda net, x: net.last(CHOICES[name](net.first(x).relu(), mask, value)), **layers).double()
    difference, quiver = error(model, torch.randn(6, 5).double())
    assert difference < 1e-9
    assert free(quiver)["first.weight"] == (1.0 if isinstance(value, float) and value == 0 else 0.0)


QUOTIENTS = {
    "a number": (lambda net, x: net.first(x).relu() / 3, 1.0),
    "a tensor without a factor": (lambda net, x: net.first(x).relu() / (1 + x[:, :4].abs()), 1.0),
    "another channel with a factor": (lambda net, x: net.first(x).relu() / net.other(x).abs(), 0.0),
    "itself, summed": (lambda net, x: net.first(x).abs() / net.first(x).abs().sum(1, keepdim=True), 0.0),
}


@pytest.mark.parametrize("name", QUOTIENTS)
def test_a_quotient_keeps_the_channels_of_what_is_divided_by_something_without_a_factor(name):
    quotient, share = QUOTIENTS[name]
    torch.manual_seed(0)
    layers = {name: nn.Linear(5, 4) for name in ("first", "other")} | {
        name: nn.Linear(4, 2) for name in ("last", "end")
    }
    model = Calls(lambda net, x: net.last(quotient(net, x)) + net.end(net.other(x)), **layers).double()
    difference, quiver = error(model, torch.randn(6, 5).double())
    assert difference < 1e-9
    assert free(quiver)["first.weight"] == share


@pytest.mark.parametrize(("threshold", "value", "share"), [(0.0, 0.0, 1.0), (0.2, 0.0, 0.0), (0.0, 0.3, 0.0)])
def test_a_threshold_other_than_zero_pins_what_it_reads(threshold, value, share):
    torch.manual_seed(0)
    layers = {"first": nn.Linear(5, 4), "last": nn.Linear(4, 2)}
    model = Calls(lambda net, x: net.last(F.threshold(net.first(x), threshold, value)), **layers).double()
    difference, quiver = error(model, torch.randn(6, 5).double())
    assert difference < 1e-9
    assert free(quiver)["first.weight"] == share
