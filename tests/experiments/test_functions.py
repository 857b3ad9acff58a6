"""The test functions against their textbook formulas, and the rotations of their level sets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.functions import FUNCTIONS

TEXTBOOK = {
    "rosenbrock": lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2,
    "booth": lambda x, y: (x + 2 * y - 7) ** 2 + (2 * x + y - 5) ** 2,
    "ellipse": lambda x, y: x**2 + 9 * y**2,
}
COORDINATES = st.floats(-10, 10)
every_function = pytest.mark.parametrize("name", FUNCTIONS)


def test_all_are_tested():
    assert set(TEXTBOOK) == set(FUNCTIONS)


@every_function
@given(x=COORDINATES, y=COORDINATES)
def test_values_are_those_of_the_textbook(name, x, y):
    assert FUNCTIONS[name](x, y) == pytest.approx(TEXTBOOK[name](x, y), rel=1e-12, abs=1e-12)


@every_function
def test_the_minimum_is_zero_and_lowest_nearby(name):
    function = FUNCTIONS[name]
    x, y = function.minimum
    assert function(x, y) == 0
    assert all(function(x + 0.1 * dx, y + 0.1 * dy) > 0 for dx in (-1, 0, 1) for dy in (-1, 0, 1) if dx or dy)


@every_function
@given(x=COORDINATES, y=COORDINATES, angle=st.floats(-math.pi, math.pi))
def test_a_rotation_leaves_the_value_unchanged(name, x, y, angle):
    function = FUNCTIONS[name]
    rotated = function.rotated(x, y, math.cos(angle), math.sin(angle))
    assert function(*rotated) == pytest.approx(function(x, y), rel=1e-8, abs=1e-8)


@every_function
@given(x=COORDINATES, y=COORDINATES, one=st.floats(-3, 3), other=st.floats(-3, 3))
def test_rotations_are_a_group_action(name, x, y, one, other):
    def rotated(x, y, angle):
        return FUNCTIONS[name].rotated(x, y, math.cos(angle), math.sin(angle))

    near = {"rel": 1e-6, "abs": 1e-6}  # Rosenbrock's coordinates are a thousand apart
    assert rotated(x, y, 0.0) == pytest.approx((x, y), **near)
    assert rotated(*rotated(x, y, one), other) == pytest.approx(rotated(x, y, one + other), **near)
