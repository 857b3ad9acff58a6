"""Three ways to one gradient norm: what is measured is what the methods promise."""

from __future__ import annotations

import pytest


def test_each_way_keeps_the_loss_and_ends_at_the_cap(measured):
    assert measured.groupby("growth").method.apply(list).map(sorted).tolist() == [["ascent", "random", "shortest"]] * 3
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
