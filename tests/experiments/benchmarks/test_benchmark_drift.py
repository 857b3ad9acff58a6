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

    parts = [(batch[0][:4], batch[1][:4]), (batch[0][4:], batch[1][4:])]
    before = drift.Evaluated(model, parts, nn.functional.cross_entropy)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in moved.parameters():
            if parameter.requires_grad:
                parameter += 1e-6 * torch.randn_like(parameter)
    first_order = drift._first_order(model, moved, before.gradients)
    told = before.against(drift.Evaluated(moved, parts, nn.functional.cross_entropy), first_order)
    with torch.no_grad():
        each = [nn.functional.cross_entropy(net(batch[0]), batch[1], reduction="none") for net in (model, moved)]
        change, loss = each[1] - each[0], max(1.0, float(each[0].mean()))
    assert told["drift"] == pytest.approx(float(change.mean()) / loss, rel=1e-6)
    assert told["first_order"] == pytest.approx(told["drift"], rel=1e-3)
    assert told["sample_change"] == pytest.approx(float(change.abs().mean()) / loss, rel=1e-6)
    assert 0 < told["output_change"] < 1e-4
    assert told["norm_on_others"] == pytest.approx(1.0, abs=1e-4)


def test_no_sample_is_in_two_sets(monkeypatch):
    monkeypatch.setattr(drift, "HELD_OUT", 6)
    monkeypatch.setattr(drift, "PART", 40)
    split = NoiseSplit(torch.arange(200.0)[:, None], torch.arange(200))
    batch, held_out, others = drift._samples(split, 10, 3, torch.device("cpu"))
    assert [len(each[1]) for each in (batch, *held_out)] == [10] * 7
    assert torch.cat([each[1] for each in (batch, *held_out, *others)]).unique().numel() == 200
    again = drift._samples(split, 10, 3, torch.device("cpu"))
    assert torch.equal(again[2][0][1], others[0][1])
    assert not torch.equal(drift._samples(split, 10, 4, torch.device("cpu"))[2][0][1], others[0][1])
