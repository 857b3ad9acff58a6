"""Counts of weights against counting."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch

from experiments.figures.rebuilt import rebuild
from experiments.figures.subjects.weight_histogram import draw_weight_histogram, histogram, measure_weight_histogram
from tests.experiments.figures.tables import VGG, tabled


def test_every_value_is_counted_once_in_its_bin():
    values = torch.randn(500, generator=torch.Generator().manual_seed(0))
    rows = histogram(values, limit=1.5, bins=6)
    assert rows["count"].sum() == 500
    assert (rows["low"].iloc[0], rows["high"].iloc[-1]) == (-math.inf, math.inf)
    for row in rows.itertuples():
        assert row.count == sum(row.low <= value < row.high for value in values.double().tolist())


def test_weights_before_and_after_are_all_counted_and_spread(initial_run):
    rows = measure_weight_histogram(initial_run, range=0.9, limit=0.2, bins=20)
    parameters = sum(p.numel() for p in rebuild(initial_run).model.parameters())
    counts = rows.pivot(index="low", columns="state", values="count")
    assert counts.sum().tolist() == [parameters, parameters]
    assert counts["before"].iloc[[0, -1]].sum() == 0 < counts["after"].iloc[[0, -1]].sum()


def test_a_histogram_shows_its_counts_and_what_lies_outside():
    before = pd.DataFrame({"low": [-np.inf, -1, 0, 1], "high": [-1, 0, 1, np.inf], "count": [0, 5, 5, 0]})
    after = before.assign(count=[1, 4, 4, 1])
    rows = pd.concat([before.assign(state="before"), after.assign(state="after")])
    left, right = draw_weight_histogram(tabled((VGG, rows)), "title").axes
    np.testing.assert_array_equal(left.patches[0].get_data().values, [5, 5])
    np.testing.assert_array_equal(right.patches[0].get_data().edges, [-1, 0, 1])
    assert "20.00% lie outside" in " ".join(text.get_text() for text in right.texts)
