"""Objectives besides the gradient, under the level-set constraint, against closed forms."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from teleport import Distance, Functional, LogGradientNorm, NullSpace, SquaredGradientNorm, TeleportObjective


def loss_fn(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 3)).double()
    return model, (torch.randn(7, 6).double(), torch.randint(3, (7,)))


def null_space_part(model, batch, number, matrix):
    """The part of a matrix of the layer ``number`` that its inputs (with their 1) do not see, by a dense projector."""
    inputs = torch.cat([model[:number](batch[0]), torch.ones(len(batch[0]), 1).double()], dim=1).detach()
    projector = torch.eye(inputs.shape[1]).double() - torch.linalg.pinv(inputs) @ inputs
    return matrix @ projector


def joined(layer):
    return torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach()


def test_towards_a_point_the_nearest_point_of_the_null_space_is_reached():
    """One step of length 1 along ``p - w`` ends at the projection of the point."""
    model, batch = problem()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter))
    start = copy.deepcopy(model)
    method = NullSpace(
        objective=Distance(list(other.parameters())),
        lr=1.0,
        lr_unit="absolute",
        steps=1,
        step="fixed",
        relative_cap=None,
    )
    report = method(model, [batch], loss_fn)
    assert report.accepted
    for number in (2, 4):
        expected = joined(start[number]) + null_space_part(
            start, batch, number, joined(other[number]) - joined(start[number])
        )
        torch.testing.assert_close(joined(model[number]), expected)
    torch.testing.assert_close(loss_fn(model, batch), loss_fn(start, batch))


@pytest.mark.parametrize("ascended", [True, False])
@pytest.mark.parametrize("kind", [SquaredGradientNorm, LogGradientNorm])
def test_the_gradient_norm_is_raised_or_lowered(kind, ascended):
    model, batch = problem()
    raised = NullSpace(relative_cap=4.0, lr=0.3)(model, [batch], loss_fn)
    assert raised.gradient_norm_after > 2 * raised.gradient_norm_before
    report = NullSpace(objective=kind(ascended=ascended), lr=0.05, relative_cap=1.5)(model, [batch], loss_fn)
    ratio = report.gradient_norm_after / report.gradient_norm_before
    assert report.accepted
    assert (1.4 < ratio <= 1.5) if ascended else ratio < 0.9
    assert report.loss_after == pytest.approx(report.loss_before, abs=1e-9)


@pytest.mark.parametrize("ascended", [True, False])
def test_a_function_of_the_outputs_on_other_data(ascended):
    model, batch = problem()
    others = torch.randn(5, 6).double()

    def spread():
        return model(others).var()

    before, loss = float(spread().detach()), loss_fn(model, batch).detach()
    report = NullSpace(objective=Functional(spread, ascended), lr=0.05, relative_cap=None)(model, [batch], loss_fn)
    assert report.accepted
    assert (float(spread().detach()) > 1.2 * before) if ascended else (float(spread().detach()) < 0.8 * before)
    torch.testing.assert_close(loss_fn(model, batch).detach(), loss)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Distance([torch.zeros(3)]), "shapes of the 6 trainable parameters"),
        (Functional(lambda: torch.zeros(2)), "must return a scalar tensor"),
        (Functional(lambda: 1.0), "must return a scalar tensor"),
    ],
)
def test_mistakes_are_told(objective: TeleportObjective, message: str):
    model, batch = problem()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        NullSpace(objective=objective)(model, [batch], loss_fn)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_a_function_of_nothing_moves_nothing():
    model, batch = problem()
    report = NullSpace(objective=Functional(lambda: torch.zeros(())))(model, [batch], loss_fn)
    assert report.no_op
