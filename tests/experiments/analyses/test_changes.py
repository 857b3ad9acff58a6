"""Random changes of basis of one model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from experiments.analyses.changes import RandomChanges
from tests.experiments.analyses.networks import NETWORKS, batch, network


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
