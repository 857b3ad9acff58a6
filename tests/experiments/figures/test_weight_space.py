"""Gradients, displacements, angles and random changes of basis, against closed forms."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from experiments.figures.weight_space import (
    RandomChanges,
    angle,
    displacement,
    flatten,
    gradient,
    norm,
    trainable,
    unit,
)
from tests.experiments.figures.networks import NETWORKS, batch, network


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


def moved(model, factors):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, copied in zip(model.parameters(), other.parameters(), strict=True):
            if parameter in factors:
                copied.mul_(factors[parameter])
    return other


@pytest.mark.parametrize("name", NETWORKS)
def test_the_function_is_kept_in_either_mode_and_the_model_is_not_touched(name):
    model, (inputs, _) = network(name).train(), batch(4)
    kept = copy.deepcopy(model.state_dict())
    (factors,) = RandomChanges(model, inputs).draw(range=0.9, count=1, seed=0)
    assert all(torch.equal(model.state_dict()[key], kept[key]) for key in kept)
    assert model.training
    for mode in (True, False):
        before, after = (copy.deepcopy(one).train(mode)(inputs) for one in (model, moved(model, factors)))
        torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9 * before.abs().max().item())


def test_each_is_another_and_a_seed_gives_the_same_ones():
    model, (inputs, _) = network("mlp500"), batch(2)
    first, second = ([*RandomChanges(model, inputs).draw(range=0.5, count=2, seed=7)] for _ in range(2))
    weight = model.linear2.weight
    torch.testing.assert_close(first[0][weight], second[0][weight], rtol=0, atol=0)
    assert not torch.allclose(first[0][weight], first[1][weight])
    rows = first[0][model.linear1.weight].flatten()
    assert rows.unique().numel() == 50
    assert 0.5 <= rows.min() < rows.max() <= 1.5


def test_a_model_without_hidden_channels_has_no_change_of_basis():
    with pytest.raises(ValueError, match="no channel of the model"):
        RandomChanges(nn.Linear(3, 2), torch.ones(1, 3))
