"""Copies of the parameters, moved along: an average of models goes on as if all its models had been moved."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from teleport import Balance, ChangeOfBasis
from tests.teleport.rescalable import relative_error

AVERAGES = {"swa": {}, "ema": {"multi_avg_fn": get_ema_multi_avg_fn(0.8)}}
MOVES = {"balance": Balance, "permutation": lambda: ChangeOfBasis(group="permutation", seed=1)}


def trained(model: nn.Module, average: AveragedModel, steps: int, seed: int) -> None:
    """Random steps, each entered into the average."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        average.update_parameters(model)


@pytest.mark.parametrize("kind", AVERAGES)
@pytest.mark.parametrize("move", MOVES)
def test_an_average_is_moved_along(kind, move):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    inputs = torch.randn(20, 5).double()
    average = AveragedModel(model, **AVERAGES[kind])
    trained(model, average, 4, seed=1)
    unmoved, before = copy.deepcopy(average), average(inputs)
    report = MOVES[move]()(model, [inputs])
    assert relative_error(average(inputs), before) == 0
    report.change.apply(average.module)
    assert relative_error(average(inputs), before) < 1e-13
    back = copy.deepcopy(model)
    report.change.inverse().apply(back)
    unmoved.update_parameters(back)  # the model in its first basis, and the same average there
    average.update_parameters(model)
    assert relative_error(average(inputs), unmoved(inputs)) < 1e-13


def test_an_average_that_is_not_moved_along_is_another_function():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    inputs = torch.randn(20, 5).double()
    average = AveragedModel(model)
    trained(model, average, 1, seed=1)
    before = model(inputs)
    ChangeOfBasis(group="permutation", seed=1)(model, [inputs])
    average.update_parameters(model)  # of one function twice, in two bases
    assert relative_error(average(inputs), before) > 1e-2
