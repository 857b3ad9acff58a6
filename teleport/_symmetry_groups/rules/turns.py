"""Two parts of an axis that are turned against each other, as rotary embeddings do: multiplication by a complex number
keeps this, per pair of units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from teleport._symmetry_groups.axis import Axis, Level, factors_in, size_of
from teleport._symmetry_groups.axis_state import Axes
from teleport._symmetry_groups.later import Complex, Later, Layout, Mixture
from teleport._symmetry_groups.rules.table import AxisCall, axis_rule

WHY = "its pairs are turned by a rotary embedding"


def part(
    call: AxisCall, input: Tensor, dim: int, which: int, layout: Layout, normal: Callable[[], Axes]
) -> Axes | Later:
    """One of two parts of an axis, of which both may be put together again.

    Args:
        call: that takes the part.
        input: the tensor.
        dim: its axis.
        which: 0 or 1.
        layout: how the axis holds the parts.
        normal: the axes of the result if they are not.
    """
    axes = call.axes(input)
    dim %= len(axes)
    if input.is_inference() or not any(True for _ in factors_in([axes[dim]])):
        return normal()
    return Later(Mixture(input, dim - len(axes), layout, {which: (1, None)}, input._version), normal)


def part_of_slice(size: int, index: Any) -> tuple[int, Layout] | None:
    """Which part of an axis a slice takes, and how the axis holds it."""
    if not isinstance(index, slice) or size % 2 or size < 4:
        return None
    taken = index.indices(size)
    half = size // 2
    halves = {(0, half, 1): 0, (half, size, 1): 1}
    pairs = {(0, size, 2): 0, (1, size, 2): 1}
    if taken in halves:
        return halves[taken], "halves"
    return (pairs[taken], "pairs") if taken in pairs else None


def together(call: AxisCall, tensors: Sequence[Any], dim: int, stacked: bool) -> Axes | None:
    """The axes of two parts that are put together, if they are turned; ``None`` if they are not.

    Args:
        call: of ``cat`` or ``stack``.
        tensors: its arguments.
        dim: of the result.
        stacked: whether the parts are on an axis of their own.
    """
    forms = [call.form(tensor) for tensor in tensors]
    if len(forms) != 2 or not all(isinstance(form, Mixture) for form in forms) or not forms[0].turns(forms[1]):
        return None
    form = forms[0]
    place = dim % call.result.dim() - call.result.dim()
    expected = {"halves": form.dim - (1 if stacked else 0), "pairs": form.dim, "axis": form.dim}[form.layout]
    if (form.layout != "halves" and not stacked) or place != expected:
        return None
    if form.layout == "pairs" and form.dim != -1:
        return None
    call.use(*tensors)
    constants = [constant for each in forms for constant in each.constants]
    axes = list(call.state.axes(form.of))
    at = form.dim % len(axes)
    if form.layout == "axis":
        return tuple(turn(call, axes, at, constants))
    size = size_of(axes[at])
    outer = form.layout == "halves"
    parts = call.split(axes[at], *((2, size // 2) if outer else (size // 2, 2)))
    whole = [*axes[:at], *parts, *axes[at + 1 :]]
    pair = at if outer else at + 1
    made = turn(call, whole, pair, constants)
    if stacked:
        return tuple(made)
    return (*made[:at], call.product(made[at], made[at + 1]), *made[at + 2 :])


def turn(call: AxisCall, axes: Sequence[Axis], pair: int, constants: Sequence[Tensor]) -> list[Axis]:
    """The axes after a product of pairs with complex numbers.

    Args:
        call: that makes the result.
        axes: of a tensor with an axis of the pairs.
        pair: this axis.
        constants: that are multiplied, in shapes of the tensor without the axis of pairs.
    """
    call.reduce([axes[pair]], Level.SCALED_TURN, WHY)
    without = [axis for place, axis in enumerate(axes) if place != pair]
    call.state.contexts.append(tuple(without))  # both of a pair meet
    for constant in constants:
        for axis, size in zip(reversed(without), reversed(constant.shape), strict=False):
            if size > 1:
                call.pin([axis], "per element of which a constant is multiplied")
    return [call.state.variables.resolve(axis) for axis in axes]


@axis_rule(torch.view_as_complex)
def _complex(call: AxisCall, input: Tensor) -> Later:
    call.axes(input)
    return Later(Complex(input), lambda: call.state.pinned_like(input, call.result))


@axis_rule(torch.view_as_real)
def _real(call: AxisCall, input: Tensor) -> Axes | None:
    form = call.form(input)
    if not isinstance(form, Complex):
        return None
    call.use(input)
    axes = call.state.axes(form.of)
    return tuple(turn(call, axes, len(axes) - 1, form.constants))
