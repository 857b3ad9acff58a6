"""Teleports across landscapes keep the loss and move the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from experiments.analyses.level_curve import level_curve
from teleport import ChangeOfBasis


@pytest.mark.parametrize("act", [nn.ReLU, nn.ELU])
def test_each_teleport_starts_from_the_same_weights_and_ends_on_the_same_level(act):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 20), act(), nn.Linear(20, 20), act(), nn.Linear(20, 3)).double().eval()
    batch = torch.randn(10, 5).double(), torch.randn(10, 3).double()
    kept = copy.deepcopy(model.state_dict())
    changes = [ChangeOfBasis(range=0.9, sampling="inter", activations="teleport", seed=seed) for seed in (0, 1, 0)]
    first, second, third = level_curve(model, batch, lambda m, b: (m(b[0]) - b[1]).square().mean(), changes)
    assert all(torch.equal(model.state_dict()[key], kept[key]) for key in kept)
    assert first == third
    for one in (first, second):
        assert one.loss_before == (model(batch[0]) - batch[1]).square().mean().item()
        assert one.loss_after == pytest.approx(one.loss_before, rel=1e-12)
        # Most signs of the hidden weights are turned in half of the cases, so that the way is about as long as |W|.
        assert 0.5 < one.weight_difference / torch.cat([p.flatten() for p in model.parameters()]).abs().mean() < 5
    assert first.weight_difference != second.weight_difference
