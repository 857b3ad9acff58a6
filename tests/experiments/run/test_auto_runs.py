"""Runs with ``teleport=auto``: within the budget, reproducible, recorded."""

from __future__ import annotations

import pytest
import torch

from experiments.run.make_run import make_run
from experiments.run.methods import TrainingBudget
from experiments.run.runs import load_table
from tests.experiments.small import small

AUTO = ("teleport=auto", "teleport.samples=16", "teleport.horizon=2", "teleport.epochs=[0,1]")


def weights(folder):
    return torch.load(folder / "model.pt", weights_only=True)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_without_budget_a_run_is_that_without_teleports(tmp_path, caplog):
    caplog.set_level("INFO", logger="experiments")
    without = make_run(small(tmp_path))
    poor = make_run(small(tmp_path, *AUTO, "teleport.share=0.01"))
    assert same(weights(without), weights(poor))
    assert load_table(poor, "teleport_events").empty
    assert "the budget of teleport.share is spent" in caplog.text


def test_events_are_recorded_and_the_same_again(tmp_path):
    """20 steps: with a share of 0.99 there is room for one event of 12 + 2 (2 + 1/3) gradients."""
    first, again = (make_run(small(tmp_path / name, *AUTO, "teleport.share=0.99")) for name in "ab")
    events = load_table(first, "teleport_events")
    assert events.step.tolist() == [0]
    assert same(weights(first), weights(again))
    reports = load_table(first, "teleports")
    assert len(reports) == 1
    assert reports.gradient_norm_after[0] == pytest.approx(2 * reports.gradient_norm_before[0], rel=0.03)


@pytest.mark.parametrize(("samples", "gradients"), [(16, 12), (64, 12), (128, 24), (320, 60)])
def test_larger_batches_cost_more(samples, gradients):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    budget = TrainingBudget(optimizer, 100, 32)
    assert budget.of_auto(samples)["event_gradients"] == gradients
