"""Barriers of closed forms, and batch-norm statistics on the line."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import teleport


def squared_error(model, batch):
    return mse_loss(model(batch[0]), batch[1])


def linear(seed):
    torch.manual_seed(seed)
    return nn.Linear(3, 1).double()


def test_a_convex_loss_sags_by_a_known_amount_and_has_no_barrier():
    """Of networks linear in their parameters: excess = -x (1 - x) mean((f_B - f_A)^2)."""
    torch.manual_seed(0)
    x, y = torch.randn(40, 3).double(), torch.randn(40, 1).double()
    a, b = linear(1), linear(2)
    found = teleport.barrier(a, b, [(x, y)], squared_error, points=9)
    apart = (a(x) - b(x)).square().mean().item()
    for alpha, excess in zip(found.alphas, found.excess, strict=True):
        assert excess == pytest.approx(-alpha * (1 - alpha) * apart, abs=1e-13)
    assert found.height == 0
    assert found.losses[0] == pytest.approx(squared_error(a, (x, y)).item())
    assert found.losses[-1] == pytest.approx(squared_error(b, (x, y)).item())


def test_a_permuted_copy_has_a_barrier_until_it_is_matched():
    torch.manual_seed(0)
    a = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    b, x = copy.deepcopy(a), torch.randn(40, 3).double()
    teleport.ChangeOfBasis(group="permutation", seed=1)(b, [x])
    batch = (x, a(x).detach())
    before = teleport.barrier(a, b, [batch], squared_error, points=5)
    after = teleport.barrier(a, teleport.match(a, b, [x]).model, [batch], squared_error, points=5)
    assert before.height > 0.01
    assert after.height == pytest.approx(0, abs=1e-25)
    assert "barrier" in str(before)


def test_statistics_are_those_of_each_network_on_the_line():
    """With statistics taken anew the middle of two batch-norm networks of one sign is normalised, without it is not."""
    torch.manual_seed(0)
    a, b = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double().eval() for _ in range(2))
    x = 5 + torch.randn(64, 3).double()
    before = copy.deepcopy(a.state_dict())
    seen = []

    def spread(model, batch):
        normed = model[1](model[0](batch))
        seen.append((normed.mean(0).abs().max().item(), normed.var(0, unbiased=True).sub(1).abs().max().item()))
        return normed.mean()

    teleport.barrier(a, b, [x], spread, points=3)
    assert seen[1][0] > 0.1
    seen.clear()
    teleport.barrier(a, b, [x], spread, points=3, statistics=[x])
    assert max(mean for mean, _ in seen) < 1e-12
    assert max(variance for _, variance in seen) < 1e-3  # eps of the norm
    assert all(torch.equal(old, new) for old, new in zip(before.values(), a.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"points": 2}, "points must be a whole number from 3, got 2"),
        ({"batches": []}, "needs at least one batch"),
        ({"b": nn.Linear(4, 1)}, "same architecture"),
    ],
)
def test_mistakes_are_told(options, sentence):
    call = {"a": nn.Linear(3, 1), "b": nn.Linear(3, 1), "batches": [torch.randn(2, 3)], **options}
    with pytest.raises(ValueError, match=sentence):
        teleport.barrier(loss_fn=lambda model, batch: model(batch).mean(), **call)
