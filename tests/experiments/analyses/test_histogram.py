"""Counts against counting."""

from __future__ import annotations

import math

import torch

from experiments.analyses.histogram import histogram


def test_every_value_is_counted_once_in_its_bin():
    values = torch.randn(500, generator=torch.Generator().manual_seed(0))
    rows = histogram(values, limit=1.5, bins=6)
    assert rows["count"].sum() == 500
    assert (rows["low"].iloc[0], rows["high"].iloc[-1]) == (-math.inf, math.inf)
    for row in rows.itertuples():
        assert row.count == sum(row.low <= value < row.high for value in values.double().tolist())
