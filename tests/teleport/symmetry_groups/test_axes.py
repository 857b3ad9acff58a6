"""Axes that are joined: a new one takes over the parts of the other, whatever their number."""

from __future__ import annotations

import pytest

from teleport._symmetry_groups.axes import AxisVariables
from teleport._symmetry_groups.axis import Axis, Level, fixed, transposed

SIZES = (2, 5, 3)


def concatenated(variables: AxisVariables) -> Axis:
    return tuple(segment for size in SIZES for segment in variables.fresh(size))


@pytest.mark.parametrize("dual", [False, True])
def test_a_new_axis_becomes_the_other_at_no_further_variable(dual):
    variables = AxisVariables()
    parts, new = concatenated(variables), variables.fresh(sum(SIZES))
    variables.reduce([parts[1:2]], Level.PERMUTATION, "a function")
    count = len(variables.level)
    variables.join(parts, new, "it meets", dual)
    assert variables.resolve(new) == (transposed(parts) if dual else parts)
    assert len(variables.level) == count
    assert [variables.level[segment[0].variable] for segment in parts] == [
        Level.GENERAL,
        Level.PERMUTATION,
        Level.GENERAL,
    ]


@pytest.mark.parametrize("seen", [False, True])
def test_the_end_is_that_of_cuts_at_all_ends(seen):
    """An axis of which something is known is cut and joined part by part; both ways carry the same elements."""
    variables = AxisVariables()
    parts, new = concatenated(variables), variables.fresh(sum(SIZES))
    if seen:
        variables.reduce([new], Level.ORTHOGONAL, "a norm")
    variables.join(parts, new, "it meets")
    assert variables.resolve(new) == variables.resolve(parts)
    assert {variables.level[segment[0].variable] for segment in variables.resolve(parts)} == {
        Level.ORTHOGONAL if seen else Level.GENERAL
    }


def test_fixed_parts_and_its_own_are_no_new_name():
    variables = AxisVariables()
    new = variables.fresh(5)
    variables.join((*fixed(2), *variables.fresh(3)), new, "it meets a fixed axis")
    first, second = variables.resolve(new)
    assert variables.level[first[0].variable] == Level.PINNED
    assert variables.reasons[first[0].variable] == ["it meets a fixed axis"]
    assert variables.level[second[0].variable] == Level.GENERAL
    own = variables.fresh(4)
    variables.join(own, own, "it meets", dual=True)
    assert variables.level[variables.resolve(own)[0][0].variable] == Level.ORTHOGONAL
