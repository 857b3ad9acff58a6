"""Means with intervals, against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from experiments.figures.intervals import mean_interval


def test_the_interval_is_that_of_a_t_test():
    values = np.random.default_rng(0).normal(3, 2, 7)
    found = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((values.mean(), found.low, found.high))


def test_equal_values_are_a_point_and_one_value_has_no_interval():
    assert mean_interval([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)
    assert mean_interval([2.0])[0] == 2.0
    assert np.isnan(mean_interval([2.0])[1:]).all()


@pytest.mark.parametrize("values", [[], [1.0, np.inf], [np.nan, 1.0]])
def test_without_finite_values_nothing_is_told(values):
    assert np.isnan(mean_interval(values)).all()
