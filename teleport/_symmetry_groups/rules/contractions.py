"""Products that are summed: a contracted axis carries an element on one side and its inverse transpose on the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from teleport._quiver.rules.contractions import matrix_axes
from teleport._symmetry_groups.axis import ONE, Axis, size_of
from teleport._symmetry_groups.axis_state import Axes
from teleport._symmetry_groups.rules.table import AxisCall, axis_rule, named

Names = Sequence[Any]
"""A name for each axis of a tensor; axes of one name are multiplied with each other."""


def contract(call: AxisCall, first: Tensor, second: Tensor, names: tuple[Names, Names, Names]) -> Axes | None:
    """The axes of ``einsum(first, second)``.

    Args:
        call: that has both as arguments.
        first, second: activations or weights.
        names: of the axes of ``first``, ``second`` and the result.
    """
    firsts, seconds, made = names
    given = (call.axes(first), call.axes(second))
    sides = [dict(zip(own, axes, strict=True)) for own, axes in zip((firsts, seconds), given, strict=True)]
    if any(len(set(own)) < len(own) for own in names):
        return None
    for place, side in enumerate(sides):
        for name, axis in side.items():
            other = sides[1 - place].get(name)
            if other is None or size_of(other) == 1:
                if name not in made:  # summed alone
                    call.reduce([axis])
                    own = given[place]
                    call.state.contexts.append(tuple(each for each in own if each is not axis))
                continue
            if place or size_of(axis) == 1:
                continue
            call.join(axis, other, dual=name not in made)
            if name in made:
                call.reduce([axis])
    together = tuple(axis for name, axis in sides[0].items() if name in sides[1])
    call.state.contexts.append(together)  # units that are told apart on one side alone meet on the other
    resolve = call.state.variables.resolve
    result: list[Axis] = []
    for name in made:
        along = [side[name] for side in sides if name in side]
        result.append(resolve(next((axis for axis in along if size_of(axis) > 1), ONE)))
    return tuple(result)


@axis_rule(F.linear)
def _linear(call: AxisCall, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Axes | None:
    rows = list(range(input.dim() - 1))
    outputs = ["out"] * (weight.dim() - 1)
    return with_bias(call, contract(call, input, weight, ([*rows, "in"], [*outputs, "in"], [*rows, *outputs])), bias)


def with_bias(call: AxisCall, axes: Axes | None, bias: Tensor | None, axis: int = -1) -> Axes | None:
    """The axes of a layer's result, whose bias has one element per channel along ``axis``."""
    if axes is None or bias is None:
        return axes
    call.join(axes[axis], call.axes(bias)[0])
    others = [each for place, each in enumerate(axes) if place != axis % len(axes)]
    call.reduce(others, why="a bias is constant along it")
    return tuple(call.state.variables.resolve(each) for each in axes)


@axis_rule(*named("matmul", "mm", "bmm", "mv", "dot", "__matmul__"))
def _matmul(call: AxisCall, input: Tensor, other: Tensor) -> Axes | None:
    return contract(call, input, other, matrix_axes(input, other))


@axis_rule(Tensor.__rmatmul__)
def _reflected_matmul(call: AxisCall, input: Tensor, other: Tensor) -> Axes | None:
    return contract(call, other, input, matrix_axes(other, input))


@axis_rule(*named("addmm", "baddbmm", "addmv"))
def _add_product(
    call: AxisCall, input: Tensor, first: Tensor, second: Tensor, *, beta: float = 1, alpha: float = 1
) -> Axes | None:
    axes = contract(call, first, second, matrix_axes(first, second))
    own = call.axes(input)
    if axes is None:
        return None
    for place, axis in enumerate(reversed(axes)):
        side = own[-1 - place] if place < len(own) else ONE
        if size_of(side) > 1:
            call.join(axis, side)
        else:
            call.reduce([axis], why="a bias is constant along it")
    return tuple(call.state.variables.resolve(each) for each in axes)


@axis_rule(torch.einsum)
def _einsum(call: AxisCall, equation: Any, *operands: Any) -> Axes | None:
    """``einsum`` of two operands, with one letter per axis."""
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or len(operands) != 2 or "." in equation:
        return None
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    first, _, second = inputs.partition(",")
    if not arrow:
        return None
    return contract(call, *operands, (first, second, output))
