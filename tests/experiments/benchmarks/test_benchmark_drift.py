"""Four ways to one gradient norm: what is measured is what the methods promise."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from experiments.benchmarks import drift
from experiments.data.embedded import NoiseSplit


def test_each_way_keeps_the_loss_and_ends_at_the_cap(measured):
    ways = ["ascent", "least drift", "random", "shortest"]
    assert measured.groupby("growth").method.apply(list).map(sorted).tolist() == [ways] * 3
    assert measured.loss_change.abs().max() < 1e-4
    growth = measured.norm_after / measured.norm_before
    assert (growth <= measured.growth * 1.001).all()
    directed = measured.method != "random"
    assert growth[directed].tolist() == pytest.approx((0.99 * measured.growth[directed]).tolist(), rel=0.02)


def test_the_shortest_way_is_the_shortest(measured):
    distances = measured.pivot_table(index="growth", columns="method", values="distance")
    assert (distances["shortest"] <= distances["ascent"] * 1.001).all()
    assert (distances["shortest"] < distances["random"]).all()
    assert distances["shortest"].is_monotonic_increasing


def test_the_way_of_least_drift_changes_the_outputs_on_other_samples_least(measured):
    changed = measured.pivot_table(index="growth", columns="method", values="output_change")
    assert (changed["least drift"] < changed["shortest"]).all()
    assert (changed["least drift"] < changed["random"]).all()
    assert changed["least drift"].is_monotonic_increasing


def test_the_first_order_part_is_the_whole_of_a_small_move():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    model[2].bias.requires_grad_(False)
    batch = torch.randn(11, 5).double(), torch.randint(3, (11,))

    def loss_fn(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    loss, gradients, outputs = drift._evaluated(model, batch, loss_fn)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in moved.parameters():
            if parameter.requires_grad:
                parameter += 1e-6 * torch.randn_like(parameter)
    after, _, outputs_after = drift._evaluated(moved, batch, loss_fn)
    assert drift._first_order(model, moved, gradients) == pytest.approx(after - loss, rel=1e-4)
    assert torch.equal(outputs, model(batch[0]))
    assert 0 < float((outputs_after - outputs).norm()) < 1e-4


def test_no_sample_is_in_two_sets():
    split = NoiseSplit(torch.arange(200.0)[:, None], torch.arange(200))
    batch, held_out, others = drift._samples(split, 10, 3, torch.device("cpu"))
    assert [len(each[1]) for each in (batch, *held_out)] == [10] * 6
    assert torch.cat([each[1] for each in (batch, *held_out, others)]).unique().numel() == 200
    again = drift._samples(split, 10, 3, torch.device("cpu"))
    assert torch.equal(again[2][1], others[1])
    assert not torch.equal(drift._samples(split, 10, 4, torch.device("cpu"))[2][1], others[1])
