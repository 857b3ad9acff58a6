"""The gradient's norm after a change of basis: the theorem against backpropagation."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from experiments.figures.subjects.magnitude import (
    Transformed,
    backpropagated,
    draw_magnitude,
    expected_gain,
    magnitudes,
    measure_magnitude,
)
from experiments.figures.weight_space import RandomChanges, gradient
from tests.experiments.figures.networks import QUICK_FIRST, batch, loss_fn, network
from tests.experiments.figures.tables import VGG, magnitude_rows, tabled


@pytest.mark.parametrize("name", QUICK_FIRST)
def test_theorem_and_backpropagation_agree_and_the_model_stays(name):
    model, data = network(name), batch(4)
    kept = copy.deepcopy(model.state_dict())
    gradients = gradient(model, data, loss_fn)
    (factors,) = RandomChanges(model, data[0]).draw(range=0.9, count=1, seed=3)
    theorem, again = Transformed(model, gradients)(factors), backpropagated(model, data, loss_fn, factors)
    assert theorem.gradient == pytest.approx(again.gradient, rel=1e-9)
    assert theorem.weights == pytest.approx(again.weights, rel=1e-12)
    assert theorem.normalised == theorem.gradient / theorem.weights
    assert abs(theorem.gradient / magnitudes(model, gradients).gradient - 1) > 0.01
    assert all(torch.equal(model.state_dict()[key], kept[key]) for key in kept)


def test_between_hidden_layers_the_gradient_grows_by_what_is_expected():
    torch.manual_seed(0)
    size = 0.6
    model = nn.Sequential(nn.Linear(4, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 2)).double()
    weight, of = model[2].weight, torch.ones(40, 40, dtype=torch.float64)
    gradients = [of if parameter is weight else torch.zeros_like(parameter) for parameter in model.parameters()]
    drawn = RandomChanges(model, torch.randn(2, 4).double()).draw(range=size, count=200, seed=0)
    transformed = Transformed(model, gradients)
    squares = [transformed(factors).gradient ** 2 / of.numel() for factors in drawn]
    assert torch.tensor(squares).mean().sqrt().item() == pytest.approx(expected_gain(size), rel=0.02)


def test_no_range_gains_nothing():
    assert expected_gain(0.0) == 1.0


def test_the_gradients_difference_grows_with_the_range(initial_run):
    rows = measure_magnitude(
        initial_run, smallest=0.01, largest=0.9, ranges=3, teleports=4, samples=16, backpropagated_every=2
    )
    theorem, again = (rows[rows["source"] == source] for source in ("theorem", "backpropagation"))
    assert theorem.groupby("range").size().tolist() == [4, 4, 4]
    assert theorem.groupby("range")["difference"].mean().is_monotonic_increasing
    assert again["range"].tolist() == [0.01, 0.9]
    for row in again.itertuples():
        same = theorem[(theorem["range"] == row.range) & (theorem["number"] == row.number)]
        assert same["gain"].item() == pytest.approx(row.gain, rel=1e-5)
        assert same["difference"].item() == pytest.approx(row.difference, rel=1e-3)
        assert same["normalised_gain"].item() == pytest.approx(row.normalised_gain, rel=1e-5)
    start = theorem["difference"] / (theorem["normalised_gain"] - 1).abs()
    np.testing.assert_allclose(start, start.iloc[0], rtol=1e-6)  # |dW| / |W|
    assert 1 < theorem.loc[theorem["range"] == 0.9, "gain"].mean() < 3 * expected_gain(0.9)


def test_magnitudes_show_every_teleport_their_mean_and_what_is_expected():
    above, below, normalised = draw_magnitude(tabled((VGG, magnitude_rows())), "title").axes
    dots, mean, again = above.lines
    np.testing.assert_allclose(dots.get_ydata(), [0, 0.1, 0.2, 0, 0.9, 1.8])
    np.testing.assert_allclose(mean.get_ydata(), [0.1, 0.9])
    np.testing.assert_allclose(again.get_ydata(), [0.4])
    np.testing.assert_allclose(normalised.lines[1].get_ydata(), [0.9, 0.1])
    expected = below.lines[-1]
    assert expected.get_ydata()[0] == 1.0
    assert expected.get_ydata()[-1] == pytest.approx(np.sqrt(1.27 / 0.19))  # range 0.9
