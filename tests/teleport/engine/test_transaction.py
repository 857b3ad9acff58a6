"""What the guard promises."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from teleport._engine.transaction import Snapshot, violation


def parameter():
    return nn.Parameter(torch.tensor([0.1, -0.0, 3.0]))


def test_values_come_back_bit_for_bit_into_the_same_parameter():
    p = parameter()
    bits = p.detach().view(torch.int32).clone()
    snapshot = Snapshot([p])
    p.data.mul_(float("nan"))
    assert not snapshot.finite()
    snapshot.restore()
    assert torch.equal(p.detach().view(torch.int32), bits)
    assert snapshot.finite()


def test_only_what_changed_by_itself_is_put_back():
    moved, touched, still = parameter(), parameter(), parameter()
    snapshot = Snapshot([moved, touched, still])
    for p in (moved, touched):
        p.data.add_(1)
    version = still._version
    snapshot.restore_all_but([moved])
    assert float(moved.detach()[0]) == pytest.approx(1.1)
    assert torch.equal(touched, parameter())
    assert still._version == version


@pytest.mark.parametrize(
    ("before", "after", "norm", "kept"),
    [
        (1.0, 1.0009, 1.0, True),
        (1.0, 1.0011, 1.0, False),
        (1.0, 0.9989, 1.0, False),
        (1e-6, 9e-4, 1.0, True),  # relative to at least 1
        (1000.0, 1000.9, 1.0, True),
        (1000.0, 1001.1, 1.0, False),
        (1.0, math.nan, 1.0, False),
        (1.0, math.inf, 1.0, False),
        (1.0, 1.0, math.inf, False),
        (math.nan, 1.0, 1.0, False),
    ],
)
def test_the_loss_may_move_within_the_tolerance_only(before, after, norm, kept):
    assert (violation(before, after, norm, 1e-3, Snapshot([parameter()])) == "") == kept


def test_finite_values_whose_sum_is_not_are_finite():
    assert Snapshot([nn.Parameter(torch.full((3,), 3e38))]).finite()
    assert not Snapshot([nn.Parameter(torch.tensor([math.inf, -math.inf]))]).finite()


def test_infinite_parameters_break_the_promise():
    p = parameter()
    snapshot = Snapshot([p])
    p.data[0] = math.inf
    assert violation(1.0, 1.0, 1.0, 1e-3, snapshot)
