"""A model as a point of its weight space, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from experiments.analyses.space import angle, displacement, flatten, gradient, norm, trainable, unit


def squared_error(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


def test_the_gradient_of_a_linear_regression():
    torch.manual_seed(0)
    model = nn.Linear(3, 1).double()
    inputs, targets = torch.randn(20, 3).double(), torch.randn(20, 1).double()
    weight, bias = gradient(model, (inputs, targets), squared_error)
    rest = (inputs @ model.weight.T + model.bias - targets).detach()
    torch.testing.assert_close(weight, 2 * (rest * inputs).mean(0, keepdim=True))
    torch.testing.assert_close(bias, 2 * rest.mean(0))


def test_a_parameter_that_has_no_part_has_no_gradient_and_a_frozen_one_no_axis():
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(5, 5))
    model[0].bias.requires_grad_(False)
    of = gradient(model, (torch.ones(4, 2), torch.zeros(4, 1)), lambda m, b: squared_error(m[0], b))
    assert [g.shape for g in of] == [p.shape for p in trainable(model)] == [(1, 2), (5, 5), (5,)]
    assert flatten(of[1:]).abs().max() == 0 < of[0].abs().min()


@pytest.mark.parametrize("mode", [True, False])
def test_batch_norm_and_dropout_work_as_asked_and_leave_no_trace(mode):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 1)).train(mode)
    batch = torch.randn(8, 3), torch.randn(8, 1)
    buffers, state = [b.clone() for b in model.buffers()], torch.get_rng_state()
    learning, still = (flatten(gradient(model, batch, squared_error, training)) for training in (True, False))
    assert not torch.allclose(learning, still)
    torch.testing.assert_close(flatten(gradient(model, batch, squared_error)), learning, rtol=0, atol=0)
    assert all(torch.equal(*pair) for pair in zip(buffers, model.buffers(), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert all(module.training is mode for module in model.modules())


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 135.0, 180.0])
def test_angles_of_known_vectors(degrees):
    turned = torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 0.0]).double()
    assert angle(unit(torch.tensor([2.0, 0.0, 0.0]).double()), unit(3 * turned)) == pytest.approx(degrees, abs=1e-6)


def test_a_small_turn_from_a_right_angle_is_seen():
    v = torch.tensor([1e-12, 1.0]).double()
    assert 90 - angle(torch.tensor([1.0, 0.0]).double(), v) == pytest.approx(math.degrees(1e-12), rel=1e-2)


def test_a_displacement_is_where_the_factors_lead_less_where_the_model_is():
    model = nn.Linear(3, 2).double()
    factors = {model.weight: torch.tensor([[2.0], [0.5]]).double()}
    moved = flatten([model.weight * factors[model.weight], model.bias]) - flatten(model.parameters())
    torch.testing.assert_close(displacement(model, factors), moved)
    assert displacement(model, factors)[-2:].abs().max() == 0


def test_the_norm_of_many_tensors_is_that_of_one():
    torch.manual_seed(0)
    tensors = [torch.randn(3, 4), torch.randn(5)]
    assert norm(tensors) == pytest.approx(flatten(tensors).double().norm().item(), rel=1e-12)
