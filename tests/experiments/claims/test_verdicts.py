"""Intervals against computations of other kinds, and verdicts on closed cases."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.claims.ledger import DIRECTIONS, Line
from experiments.claims.sides import FIRST, SECOND
from experiments.claims.verdicts import FAILS, HOLDS, UNDECIDED, decide, judge
from experiments.figures.intervals import mean_interval

T_975 = {2: 4.302652729911275, 3: 3.182446305284263, 9: 2.262157162740992}
"""Quantiles of Student's t by degrees of freedom, from a printed table."""
BASE = {"paper": "p", "ledger": "l", "id": "c", "place": "f", "claim": "it", "case": "", "at": "", "figure": "a/b"}


def line(**keys):
    own = {"quantity": "loss", "direction": "lower", "smallest": 0.05, "unit": "relative", "first": {}, "second": {}}
    return Line(**BASE | own | keys)


def pairs(first, second=None, **columns):
    return pd.DataFrame({FIRST: first, **({} if second is None else {SECOND: second}), **columns})


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0], [0.5, -0.25, 0.125, 3.0], list(np.linspace(-1, 1, 10) ** 3)])
def test_the_interval_is_that_of_a_printed_table(values):
    n, mean = len(values), sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    half = T_975[n - 1] * deviation / math.sqrt(n)
    assert mean_interval(values) == pytest.approx((mean, mean - half, mean + half), rel=1e-9)


def test_the_interval_has_its_coverage():
    """Of samples of five from a normal distribution, 95 % of the intervals contain its mean."""
    samples = np.random.default_rng(0).normal(3.0, 2.0, (1000, 5))
    inside = [low <= 3.0 <= high for _, low, high in map(mean_interval, samples)]
    assert np.mean(inside) == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 1000))


@pytest.mark.parametrize(
    ("direction", "low", "high", "expected"),
    [
        ("lower", -0.3, -0.1, HOLDS),
        ("lower", -0.3, -0.05, UNDECIDED),
        ("lower", -0.09, 0.2, FAILS),
        ("lower", 0.1, 0.2, FAILS),
        ("higher", 0.1, 0.3, HOLDS),
        ("higher", 0.05, 0.3, UNDECIDED),
        ("higher", -0.3, 0.09, FAILS),
        ("not lower", -0.09, 0.2, HOLDS),
        ("not lower", -0.3, 0.05, UNDECIDED),
        ("not lower", -0.3, -0.2, FAILS),
        ("not higher", -0.5, 0.05, HOLDS),
        ("not higher", 0.1, 0.2, FAILS),
        ("equal", -0.1, 0.1, HOLDS),
        ("equal", -0.05, 0.2, UNDECIDED),
        ("equal", 0.11, 0.2, FAILS),
        ("equal", -0.2, -0.11, FAILS),
        ("equal", -0.2, 0.2, UNDECIDED),
        ("different", 0.1, 0.2, HOLDS),
        ("different", -0.2, -0.1, HOLDS),
        ("different", -0.09, 0.09, FAILS),
        ("different", 0.05, 0.2, UNDECIDED),
    ],
)
def test_closed_cases_at_a_smallest_effect_of_a_tenth(direction, low, high, expected):
    assert decide(direction, 0.1, low, high) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.1, 0.2, HOLDS), (0, 0, FAILS), (-1, 0, FAILS), (-1, 1, UNDECIDED)]
)
def test_any_effect_counts_but_none_does_not(low, high, expected):
    assert decide("higher", 0.0, low, high) == expected
    assert decide("lower", 0.0, -high, -low) == expected


bounds = st.tuples(st.floats(-2, 2), st.floats(-2, 2)).map(sorted)


@given(st.sampled_from(DIRECTIONS), st.floats(0, 1), bounds, st.floats(0, 1), st.floats(0, 1))
def test_a_narrower_interval_never_contradicts(direction, smallest, outer, start, share):
    """Within an interval that decides, every part of it decides the same."""
    low, high = outer
    inner_low = min(low + start * (high - low), high)
    inner_high = min(inner_low + share * (high - inner_low), high)
    verdict = decide(direction, smallest, low, high)
    assert verdict in (UNDECIDED, decide(direction, smallest, inner_low, inner_high))


@given(st.floats(0, 1), bounds)
def test_mirrored_claims_have_mirrored_verdicts(smallest, bound):
    low, high = bound
    assert decide("lower", smallest, low, high) == decide("higher", smallest, -high, -low)
    opposite = {HOLDS: FAILS, FAILS: HOLDS, UNDECIDED: UNDECIDED}
    assert decide("not lower", smallest, low, high) == opposite[decide("lower", smallest, low, high)]


def test_a_relative_effect_is_the_ratio_of_geometric_means():
    found = judge(line(), pairs([0.5, 0.4, 0.9], [1.0, 1.0, 1.0]))
    assert found.effect == pytest.approx((0.5 * 0.4 * 0.9) ** (1 / 3) - 1)
    logs = np.log([0.5, 0.4, 0.9])
    half = T_975[2] * logs.std(ddof=1) / math.sqrt(3)
    assert found.low == pytest.approx(math.exp(logs.mean() - half) - 1, rel=1e-9)
    assert found.high == pytest.approx(math.exp(logs.mean() + half) - 1, rel=1e-9)


def test_pairing_removes_what_seeds_share():
    """Seeds that differ tenfold, and one side 10 % below the other on each: unpaired nothing could be said."""
    second = np.array([0.1, 1.0, 0.3, 0.02])
    assert judge(line(), pairs(0.9 * second + [1e-4, 0, 0, 1e-4], second)).verdict == HOLDS


@pytest.mark.parametrize("n", [1, 2])
def test_few_pairs_decide_nothing(n):
    found = judge(line(), pairs([0.1] * n, [1.0] * n))
    assert (found.verdict, found.n, found.effect, found.low) == (UNDECIDED, n, pytest.approx(-0.9), None)


def test_one_counterexample_refutes_a_claim_about_every_value_and_not_one_about_some():
    table = pairs([0.5, 0.5, 1.0], [1.0, 1.0, 1.0])
    assert judge(line(rule="every"), table).verdict == FAILS
    assert judge(line(rule="some"), table).verdict == HOLDS
    assert judge(line(rule="every"), table.iloc[[0, 1, 1]]).verdict == HOLDS
    assert judge(line(rule="some"), table.iloc[[2, 2, 2]]).verdict == FAILS


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_a_value_without_a_ratio_decides_nothing(bad):
    assert judge(line(), pairs([0.1, 0.1, bad], [1.0, 1.0, 1.0])).verdict == UNDECIDED


def test_a_value_is_compared_with_a_number():
    found = judge(
        line(second=None, value=90, direction="equal", smallest=0.01, unit="absolute"), pairs([90, 90.001, 89.999])
    )
    assert (found.verdict, found.effect) == (HOLDS, pytest.approx(0, abs=1e-9))


def test_a_growth_is_the_exponent_of_a_power():
    own = line(second=None, value=2.0, growth="width", direction="equal", smallest=0.1, unit="absolute")
    width = np.array([1.0, 2.0, 4.0, 8.0])
    exact = judge(own, pairs(3 * width**2, width=width))
    assert (exact.verdict, exact.effect) == (HOLDS, pytest.approx(0, abs=1e-12))
    values = 3 * width**2.05 * np.exp([0.1, -0.1, 0.1, -0.1])
    noisy = judge(own, pairs(values, width=width))
    x, y = np.log(width), np.log(values)
    slope, offset = np.polyfit(x, y, 1)
    error = math.sqrt(((y - slope * x - offset) ** 2).sum() / 2 / ((x - x.mean()) ** 2).sum())
    assert noisy.effect == pytest.approx(slope - 2)
    assert noisy.high - noisy.low == pytest.approx(2 * T_975[2] * error)
    assert noisy.verdict == UNDECIDED


def test_the_growth_of_a_ratio():
    own = line(value=None, growth="width", direction="higher", smallest=0.1, unit="absolute")
    width = np.array([1.0, 2.0, 4.0])
    found = judge(own, pairs(width**2, width**1.5, width=width))
    assert (found.verdict, found.effect) == (HOLDS, pytest.approx(0.5))
