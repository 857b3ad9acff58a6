"""The loss surface of two weights, and teleports on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from experiments.figures.subjects.landscape import draw_landscape, measure_landscape, surface
from tests.experiments.figures.tables import said, tabled


def test_a_known_surface_and_parameters_that_stay():
    first, second = (nn.Parameter(torch.full((1, 1), value, dtype=torch.float64)) for value in (0.3, -0.7))
    ticks = torch.linspace(-1, 1, 5, dtype=torch.float64)
    found = surface(first, second, ticks, lambda: (first**2 + 3 * second).squeeze())
    torch.testing.assert_close(found, ticks[:, None] ** 2 + 3 * ticks)
    assert (first.item(), second.item()) == (0.3, -0.7)


def test_all_teleports_of_two_weights_lie_on_the_level_of_the_loss():
    rows = measure_landscape(None, range=0.5, teleports=4, points=5)
    start = rows[rows["what"] == "start"].iloc[0]
    teleports = rows[rows["what"] == "teleport"]
    np.testing.assert_allclose(teleports["loss"], start["loss"], rtol=1e-12)
    np.testing.assert_allclose(teleports["first"] * teleports["second"], start["first"] * start["second"], rtol=1e-12)
    np.testing.assert_allclose(teleports["first"], teleports["tau"] * start["first"], rtol=1e-12)
    assert ((teleports["tau"] > 0) == (teleports["landscape"] == "original")).all()
    assert teleports.groupby("landscape").size().tolist() == [4, 4]


def test_the_other_landscape_is_that_of_the_teleported_activation():
    rows = measure_landscape(None, range=0.5, teleports=1, points=5, samples=20, seed=3)
    x, noise = torch.randn(2, 20, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64).numpy()
    targets = 0.5 * np.maximum(x, 0) + 0.2 * np.minimum(x, 0) + 0.05 * noise
    for landscape, f in (("original", np.maximum), ("other", np.minimum)):
        surface = rows[(rows["what"] == "surface") & (rows["landscape"] == landscape)]
        assert len(surface) == 25
        for row in surface.itertuples():
            expected = np.mean((row.second * f(row.first * x, 0) - targets) ** 2)
            assert row.loss == pytest.approx(expected, rel=1e-12)


def test_landscapes_show_their_points_and_how_far_the_losses_are():
    rows = measure_landscape(None, range=0.5, teleports=3, points=7)
    figure = draw_landscape(tabled(({}, rows)), "title")
    for axes, landscape in zip(figure.axes, ("original", "other"), strict=True):
        drawn = axes.lines[-1].get_xydata()
        expected = rows[(rows["what"] == "teleport") & (rows["landscape"] == landscape)]
        np.testing.assert_array_equal(drawn, expected[["first", "second"]])
    assert "7 x 7 points" in said(figure)
