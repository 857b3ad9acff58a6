"""Feature maps of layers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from experiments.analyses.feature_maps import feature_maps
from teleport import ChangeOfBasis


def test_outputs_of_layers_as_they_are_when_they_are_made():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3))
    image = torch.randn(1, 1, 8, 8)
    (first, hidden), outputs = feature_maps(model, [model[0], model[1]], image)
    torch.testing.assert_close(first, model[0](image))
    torch.testing.assert_close(hidden, model[0](image).relu())
    torch.testing.assert_close(outputs, model(image))
    assert not any(module._forward_hooks for module in model.modules())


def test_of_a_layer_that_is_called_twice_the_last_call():
    act = nn.Tanh()
    model = nn.Sequential(nn.Linear(2, 2), act, nn.Linear(2, 2), act)
    (found,), outputs = feature_maps(model, [act], torch.ones(1, 2))
    torch.testing.assert_close(found, outputs, rtol=0, atol=0)


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
def test_a_teleport_multiplies_each_map_and_keeps_the_outputs(act):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), act(), nn.Conv2d(4, 2, 3)).double()
    image, moved = torch.randn(1, 1, 8, 8).double(), copy.deepcopy(model)
    report = ChangeOfBasis(range=0.9, activations="teleport", seed=0)(moved, [(image, None)])
    (before,), outputs = feature_maps(model, [model[1]], image)
    (after,), again = feature_maps(report.model, [moved[1]], image)
    torch.testing.assert_close(again, outputs)
    tau = moved[0].bias / model[0].bias
    torch.testing.assert_close(after, before * tau[:, None, None])
    assert (tau - 1).abs().min() > 1e-3
