"""The line between two networks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from teleport._matching.line import Line, reset_statistics


def normed(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)).double()


def test_the_ends_are_the_networks_and_neither_is_touched():
    first, second = (nn.Linear(3, 2).double() for _ in range(2))
    before = copy.deepcopy([first.state_dict(), second.state_dict()])
    x = torch.randn(5, 3).double()
    outputs = Line(first, second).along([0.0, 1.0, 0.25], lambda model: model(x).detach())
    torch.testing.assert_close(outputs[0], first(x), rtol=0, atol=0)
    torch.testing.assert_close(outputs[1], second(x))
    torch.testing.assert_close(outputs[2], 0.75 * first(x) + 0.25 * second(x))  # linear in its parameters
    for model, kept in zip((first, second), before, strict=True):
        assert all(torch.equal(model.state_dict()[name], kept[name]) for name in kept)


def test_a_quadratic_loss_is_a_parabola_along_the_line():
    torch.manual_seed(0)
    first, second = (nn.Linear(3, 1).double() for _ in range(2))
    x, y = torch.randn(30, 3).double(), torch.randn(30, 1).double()
    alphas = torch.linspace(-0.5, 1.5, 9).tolist()
    losses = Line(first, second).along(alphas, lambda model: (model(x) - y).square().mean().item())
    differences = torch.tensor(losses, dtype=torch.float64).diff(n=3)
    assert differences.abs().max() < 1e-12 * max(losses)


def test_statistics_on_the_way_are_the_batchs_own():
    batches = [torch.randn(16, 4).double() for _ in range(3)]
    (found,) = Line(normed(0), normed(1), batches).along([0.5], lambda model: copy.deepcopy(model))
    linear, norm = found[0], found[1]
    hidden = [linear(batch).detach() for batch in batches]
    torch.testing.assert_close(norm.running_mean, torch.stack([h.mean(0) for h in hidden]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([h.var(0) for h in hidden]).mean(0))
    assert not any(module.training for module in found.modules())
    assert norm.momentum == 0.1


@pytest.mark.parametrize("inputs", [[], [torch.zeros(2, 3)]])
def test_nothing_to_reset_statistics_changes_nothing(inputs):
    model = nn.Linear(3, 1) if inputs else normed(0)
    before = copy.deepcopy(model.state_dict())
    reset_statistics(model, inputs)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
