"""What tau is drawn from."""

from __future__ import annotations

import math

import pytest
import torch

from teleport._change_of_basis.sampling import FLOOR, check_sampling, draw_tau

COUNT = 200_000

# sampling, range, center -> the mean and the mean square of the distribution, and its ends
MOMENTS = [
    ("intra", 0.9, 0.0, 1.0, 1 + 0.81 / 3, 0.1, 1.9),
    ("inter", 0.5, 0.0, 0.0, 1 + 0.25 / 3, -1.5, 1.5),
    ("positive", 3.0, 0.0, 1.5, 3.0, 0.0, 3.0),
    ("negative", 3.0, 0.0, -1.5, 3.0, -3.0, 0.0),
    ("centered", 0.5, -2.0, -2.0, 4 + 0.25 / 3, -2.5, -1.5),
]


def drawn(sampling, range, center=0.0, seed=0, count=COUNT):
    return draw_tau(count, sampling, range, center, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("sampling", "range", "center", "mean", "square", "low", "high"), MOMENTS)
def test_moments_and_ends(sampling, range, center, mean, square, low, high):
    tau = drawn(sampling, range, center)
    error = 5 * math.sqrt(square / COUNT)
    assert float(tau.mean()) == pytest.approx(mean, abs=error)
    assert float(tau.square().mean()) == pytest.approx(square, rel=5 * 2 / math.sqrt(COUNT))
    assert low <= float(tau.min()) <= low + 0.01 + FLOOR
    assert high - 0.01 - FLOOR <= float(tau.max()) <= high


def test_inter_mixes_both_landscapes_equally():
    tau = drawn("inter", 0.5)
    assert float((tau < 0).double().mean()) == pytest.approx(0.5, abs=5 / (2 * math.sqrt(COUNT)))
    assert float(tau.abs().min()) >= 0.5
    assert float(tau[tau < 0].mean()) == pytest.approx(-1, abs=0.01)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 0.9])
def test_the_expected_growth_of_a_squared_weight(sigma):
    """``E[(tau_a / tau_b)^2] = (1 + s^2/3) / (1 - s^2)`` of independent factors; by ratios of independent halves."""
    count = 4_000_000
    over, under = drawn("intra", sigma, count=count), drawn("intra", sigma, seed=1, count=count)
    ratios = (over / under).square()
    expected = (1 + sigma**2 / 3) / (1 - sigma**2)
    spread = float(ratios.std()) / math.sqrt(count)
    assert float(ratios.mean()) == pytest.approx(expected, abs=5 * spread)
    assert 5 * spread < 0.02 * expected


@pytest.mark.parametrize("sampling", ["positive", "negative", "centered"])
def test_nothing_is_closer_to_zero_than_the_floor(sampling):
    tau = drawn(sampling, 2 * FLOOR)
    assert float(tau.abs().min()) == FLOOR
    assert bool((tau > 0).all()) == (sampling == "positive")
    assert bool((tau < 0).all()) == (sampling == "negative")


def test_the_generator_alone_decides():
    assert torch.equal(drawn("inter", 0.9), drawn("inter", 0.9))
    assert not torch.equal(drawn("inter", 0.9), drawn("inter", 0.9, seed=1))
    before = torch.random.get_rng_state()
    drawn("inter", 0.9)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("sampling", "range", "center", "message"),
    [
        ("within", 0.5, 1.0, "sampling must be one of intra, inter, positive, negative, centered, got 'within'"),
        ("intra", 1.0, 1.0, "range must be below 1 where sampling is intra, got 1.0"),
        ("inter", 1.5, 1.0, "range must be below 1 where sampling is inter"),
        ("positive", 0.0, 1.0, "range must be above 0"),
        ("centered", math.nan, 1.0, "range must be above 0"),
        ("centered", 1.0, math.inf, "must be finite"),
    ],
)
def test_what_is_no_distribution_is_refused(sampling, range, center, message):
    with pytest.raises(ValueError, match=message):
        check_sampling(sampling, range, center)
