"""Means with their intervals, as pictures and comparisons of figures tell them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


def mean_interval(values: Iterable[float]) -> tuple[float, float, float]:
    """The mean of ``values`` and the ends of its 95 % interval (Student's t).

    All are nan without values or if one is not finite, the ends also for a single value. The interval of equal values
    is a point.
    """
    array = np.asarray(list(values), dtype=float)
    if not len(array) or not np.isfinite(array).all():
        return np.nan, np.nan, np.nan
    mean = float(array.mean())
    if len(array) == 1:
        return mean, np.nan, np.nan
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(array) - 1) * stats.sem(array))
    return mean, mean - half, mean + half
