"""A teleport against a random move of the same length."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from experiments.analyses.changes import RandomChanges
from experiments.analyses.control import teleport_and_control
from experiments.analyses.magnitude import Transformed
from experiments.analyses.space import gradient
from tests.experiments.analyses.networks import batch, loss_fn, network


@pytest.mark.parametrize("name", ["mlp500", "resnet18"])
def test_a_teleport_keeps_the_loss_and_a_move_as_long_does_not(name):
    model, data = network(name), batch(8)
    kept = copy.deepcopy(model.state_dict())
    (factors,) = RandomChanges(model, data[0]).draw(range=0.9, count=1, seed=0)
    start, teleport, control = teleport_and_control(model, data, loss_fn, factors, torch.Generator().manual_seed(0))
    assert teleport.loss == pytest.approx(start.loss, rel=1e-9)
    assert abs(control.loss / start.loss - 1) > 1e-3
    theorem = Transformed(model, gradient(model, data, loss_fn))(factors)
    assert teleport.magnitudes.gradient == pytest.approx(theorem.gradient, rel=1e-9)
    assert all(torch.equal(model.state_dict()[key], kept[key]) for key in kept)


def test_the_control_is_as_far_away_as_the_teleport():
    model = nn.Linear(400, 1, bias=False).double()
    factors = {model.weight: torch.full((1, 1), 1.5, dtype=torch.float64)}
    data = torch.eye(400, dtype=torch.float64), None

    def squares(model, batch):
        return (model(batch[0]) - model_weight.T).square().sum()  # the squared distance from where it was

    model_weight = model.weight.detach().clone()
    start, teleport, control = teleport_and_control(model, data, squares, factors, torch.Generator().manual_seed(0))
    assert start.loss == 0.0
    assert teleport.loss == pytest.approx(0.25 * model_weight.square().sum().item())
    assert control.loss == pytest.approx(teleport.loss)
