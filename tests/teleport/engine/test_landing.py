"""Landing on the cap: polynomials known in closed form, and squared gradient norms that must be polynomials."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import Polynomial
from torch import nn

from teleport._engine.batch_loss import BatchLoss
from teleport._engine.capped_step import BELOW_CAP, Line, capped_step
from teleport._engine.landing import Shape, SquaredNormAlongPath

FEW = settings(derandomize=True, max_examples=25, deadline=None)


class Along:
    """A loss whose gradient at distance t along a line is ``(q_1(t), ..., q_n(t))``, for given polynomials.

    Attributes:
        lengths: where it was evaluated.
        norm, slope: the gradient norm at 0, and the derivative of half its square.
    """

    def __init__(self, polynomials):
        self.polynomials, self.lengths = polynomials, []
        weights = nn.Parameter(torch.ones(len(polynomials), dtype=torch.float64))
        self.place = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.line = Line([self.place], [torch.ones((), dtype=torch.float64)])
        self.loss = BatchLoss(lambda: self._values() @ weights, [weights])
        starts = [(q(0.0), q.deriv()(0.0)) for q in polynomials]
        self.norm = math.sqrt(sum(value**2 for value, _ in starts))
        self.slope = sum(value * rise for value, rise in starts)

    def _values(self):
        self.lengths.append(float(self.place.detach()))
        return torch.stack([sum(c * self.place**power for power, c in enumerate(q.coef)) for q in self.polynomials])

    def norm_at(self, length):
        """The gradient norm, from the polynomials alone."""
        return math.sqrt(sum(q(length) ** 2 for q in self.polynomials))

    def step(self, length, cap, slope=True, shape=None):
        """The length taken under ``cap``."""
        known = self.slope if slope else None
        taken, _ = capped_step(self.loss, self.line, length, self.norm, cap, False, slope=known, shape=shape)
        assert float(self.place.detach()) == taken
        return taken


def layered(layers, seed, size=1.0, speed=1.0):
    """Products of one factor ``1 + a t`` per moving layer, as the paths through a linear network have."""
    rates = speed * np.random.default_rng(seed).uniform(0.0, 1.0, (5, layers))
    return Along([math.prod((Polynomial([1.0, a]) for a in of_path), start=Polynomial([size])) for of_path in rates])


@pytest.mark.parametrize("factor", [1.5, 2.0, 4.0, 8.0])
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_polynomials_of_degree_2_4_and_8_are_landed_within_four_evaluations(layers, factor):
    for seed in range(10):
        along = layered(layers, seed)
        cap = factor * along.norm
        reached = along.norm_at(along.step(1e3, cap))
        assert BELOW_CAP * cap * (1 - 1e-12) <= reached <= cap * (1 + 1e-12)
        assert len(along.lengths) <= (2 if layers == 1 else 4)


@FEW
@given(st.integers(1, 4), st.integers(0, 100), st.floats(1e-6, 10), st.floats(1.05, 10), st.booleans())
def test_no_evaluation_is_beyond_the_whole_step(layers, seed, length, factor, slope):
    """And the whole step is taken, in the end, if the norm there is below the cap."""
    along = layered(layers, seed)
    cap = factor * along.norm
    taken = along.step(length, cap, slope)
    assert max(along.lengths) <= length
    if along.norm_at(length) <= cap:
        assert taken == length or along.norm_at(taken) >= BELOW_CAP * cap
    else:
        assert BELOW_CAP * cap * (1 - 1e-12) <= along.norm_at(taken) <= cap * (1 + 1e-12)


@pytest.mark.parametrize("cap", [2.0, math.inf])
@pytest.mark.parametrize("slope", [True, False])
def test_past_a_maximum_the_first_length_that_gains_is_taken(cap, slope):
    """Half of a step that falls, or the length before it: ``1 + t - t^2`` has its maximum at 1/2, above 1 until 1."""
    along = Along([Polynomial([1.0, 1.0, -1.0])])
    taken = along.step(1.5, cap, slope)
    assert len(along.lengths) <= 3
    assert 0 < taken < 1
    assert along.norm_at(taken) > 1.1


def test_without_a_slope_the_first_evaluation_is_the_whole_step():
    along = layered(2, seed=0)
    along.step(3.0, 1.1 * along.norm, slope=False)
    assert along.lengths[0] == 3.0


@FEW
@given(st.integers(1, 3), st.integers(0, 100), st.booleans())
def test_enough_values_give_the_length_itself(layers, seed, slope):
    """A polynomial of degree 2n is known from its start and 2n values, one fewer with the slope."""
    along = layered(layers, seed)
    curve = SquaredNormAlongPath(along.norm, along.slope if slope else None)
    for length in np.linspace(0.2, 1.0, min(2 * layers, 5)):
        curve.add(float(length), along.norm_at(length))
    if layers == 3 and not slope:  # one value too few
        return
    assert curve.length_at(along.norm_at(0.55), 0.0, 1.0) == pytest.approx(0.55, abs=1e-9)
    assert curve.length_at(2 * along.norm_at(1.0), 0.0, 1.0) == 1.0


def test_little_knowledge_gives_no_length():
    assert SquaredNormAlongPath(1.0, None).first(2.0) == math.inf
    assert SquaredNormAlongPath(0.0, 1.0).first(2.0) == math.inf
    curve = SquaredNormAlongPath(1.0, None)
    assert curve.length_at(2.0, 0.0, 1.0) is None
    curve.add(1.0, 3.0)
    curve.add(0.5, math.inf)
    curve.add(0.4, math.nan)
    assert curve.length_at(2.0, 0.0, 1.0) is None
    curve.add(0.3, 1.5)
    assert 0.3 < curve.length_at(2.0, 0.3, 1.0) < 1.0


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("growth", [1.5, 4.0])
def test_a_line_of_the_same_shape_lands_on_its_first_length(layers, growth):
    """Whatever its norm and its unit of length."""
    shape, first = Shape(), layered(layers, seed=1)
    first.step(100.0, growth * first.norm, shape=shape)
    other = layered(layers, seed=1, size=30.0, speed=1e-3)
    taken = other.step(1e5, growth * other.norm, shape=shape)
    assert len(other.lengths) == 1
    assert BELOW_CAP * growth * other.norm <= other.norm_at(taken) <= growth * other.norm


@FEW
@given(st.integers(1, 4), st.integers(0, 50), st.integers(0, 50), st.floats(1.2, 8.0), st.floats(1.2, 8.0))
def test_a_line_of_another_shape_lands_as_well(layers, seed, other_seed, growth, other_growth):
    shape, first, other = Shape(), layered(layers, seed), layered(5 - layers, other_seed, size=3.0, speed=10.0)
    first.step(100.0, growth * first.norm, shape=shape)
    taken = other.step(100.0, other_growth * other.norm, shape=shape)
    assert BELOW_CAP * other_growth * other.norm <= other.norm_at(taken) <= other_growth * other.norm
    assert len(other.lengths) <= 5
