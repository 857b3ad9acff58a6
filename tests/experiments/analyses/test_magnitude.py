"""The gradient's magnitude after a change of basis: what the theorem says against backpropagation."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from experiments.analyses.changes import RandomChanges
from experiments.analyses.magnitude import Transformed, backpropagated, expected_gain, magnitudes
from experiments.analyses.space import gradient
from tests.experiments.analyses.networks import NETWORKS, batch, loss_fn, network


@pytest.mark.parametrize("name", NETWORKS)
def test_theorem_and_backpropagation_agree_and_the_model_stays(name):
    model, data = network(name), batch(4)
    kept = copy.deepcopy(model.state_dict())
    gradients = gradient(model, data, loss_fn)
    (factors,) = RandomChanges(model, data[0]).draw(range=0.9, count=1, seed=3)
    theorem, again = Transformed(model, gradients)(factors), backpropagated(model, data, loss_fn, factors)
    assert theorem.gradient == pytest.approx(again.gradient, rel=1e-9)
    assert theorem.weights == pytest.approx(again.weights, rel=1e-12)
    assert theorem.normalised == theorem.gradient / theorem.weights
    assert abs(theorem.gradient / magnitudes(model, gradients).gradient - 1) > 0.01
    assert all(torch.equal(model.state_dict()[key], kept[key]) for key in kept)


def test_between_hidden_layers_the_gradient_grows_by_what_is_expected():
    torch.manual_seed(0)
    size = 0.6
    model = nn.Sequential(nn.Linear(4, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 2)).double()
    weight, of = model[2].weight, torch.ones(40, 40, dtype=torch.float64)
    gradients = [of if parameter is weight else torch.zeros_like(parameter) for parameter in model.parameters()]
    drawn = RandomChanges(model, torch.randn(2, 4).double()).draw(range=size, count=200, seed=0)
    transformed = Transformed(model, gradients)
    squares = [transformed(factors).gradient ** 2 / of.numel() for factors in drawn]
    assert torch.tensor(squares).mean().sqrt().item() == pytest.approx(expected_gain(size), rel=0.02)


def test_no_range_gains_nothing():
    assert expected_gain(0.0) == 1.0
