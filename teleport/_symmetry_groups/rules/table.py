"""The table of rules for axes, and the call that a rule is given.

A rule is called after the function, with the call and the function's arguments. It returns the axes of its result, a
list of them if the function returns several tensors, or ``None`` if it does not understand the call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from teleport._quiver.rules.table import entering, in_sight, named, understood
from teleport._symmetry_groups.axis import Axis, Level, size_of
from teleport._symmetry_groups.axis_state import Axes, AxisState
from teleport._symmetry_groups.later import Later
from teleport._tracing.functions import called
from teleport._tracing.ownership import tensors_in

AxisRule = Callable[..., Axes | Later | list[Axes] | list[Axes | Later] | None]

AXIS_RULES: dict[Callable[..., Any], AxisRule] = {}


@dataclass
class AxisCall:
    """One call of a torch function, for its rule.

    Attributes:
        state: the axes of the evaluation so far.
        func: the function.
        result: of the call.
        asked: the identities of the arguments whose axes the rule has read.
    """

    state: AxisState
    func: Callable[..., Any]
    result: Any
    asked: set[int] = field(default_factory=set)

    def axes(self, tensor: Tensor, statistics: bool = False) -> Axes:
        """The axes of an argument."""
        self.asked.add(id(tensor))
        return self.state.axes(tensor, statistics)

    def form(self, tensor: Any) -> Any:
        """The form of an argument whose axes are put off, else ``None``; one that is used so is accounted for."""
        return self.state.form(tensor)

    def use(self, *tensors: Tensor) -> None:
        """Account for arguments without a look at their axes."""
        self.asked.update(map(id, tensors))

    def join(self, first: Axis, second: Axis, dual: bool = False) -> None:
        """The same element acts on both axes, or, if they are contracted, its inverse transpose on the second."""
        self.state.variables.join(first, second, f"it meets a fixed axis in {called(self.func)}", dual)

    def reduce(self, axes: Sequence[Axis], level: Level = Level.PERMUTATION, why: str = "") -> None:
        """Reduce the groups that may act on these axes."""
        self.state.variables.reduce(axes, level, why or f"it enters {called(self.func)}")

    def pin(self, axes: Sequence[Axis], why: str) -> None:
        """Nothing acts on these axes."""
        self.state.pin(axes, f"it enters {called(self.func)}, {why}")

    def mix(self, axes: Axes, over: Sequence[int], level: Level = Level.PERMUTATION, why: str = "") -> None:
        """Elements are mixed over some axes in a way that keeps permutations, or a group of this level; no other
        element may differ along them."""
        over = [axis % len(axes) for axis in over]
        self.reduce([axes[axis] for axis in over], level, why)
        self.state.contexts.append(tuple(axis for place, axis in enumerate(axes) if place not in over))

    def cut(self, axis: Axis, start: int, stop: int) -> Axis:
        """The part of an axis from ``start`` to ``stop``."""
        return self.state.variables.cut(axis, start, stop, f"it is cut unevenly in {called(self.func)}")

    def split(self, axis: Axis, *sizes: int) -> list[Axis]:
        """One axis per size, of an axis that is reshaped."""
        return self.state.variables.split(axis, sizes, f"it is cut unevenly in {called(self.func)}")

    def product(self, *axes: Axis) -> Axis:
        """Several axes flattened."""
        return self.state.variables.product(axes)

    def broadcast(self, tensors: Sequence[Tensor], product: bool = False) -> Axes:
        """The axes of an elementwise sum or product of tensors.

        Args:
            tensors: that broadcast.
            product: whether they are multiplied: a tensor that is constant along an axis is a number there.
        """
        given = [self.axes(tensor) for tensor in tensors]
        dims = max(len(axes) for axes in given)
        result: list[Axis] = []
        for place in range(-dims, 0):
            along = [axes[place] for axes in given if len(axes) >= -place]
            long = [axis for axis in along if size_of(axis) > 1]
            if not long:
                result.append(along[0])
                continue
            result.append(self._along(long, len(given), product))
        return tuple(result)

    def _along(self, long: list[Axis], count: int, product: bool) -> Axis:
        """The axis of an elementwise sum or product of ``count`` tensors, of those that are not constant along it."""
        variables = self.state.variables
        if product and len(long) == 2 and variables.copied(long[0]) != variables.copied(long[1]):
            other, copied = sorted(long, key=variables.copied)
            joined = variables.join_varying(other, copied, f"it meets a fixed axis in {called(self.func)}")
            self.reduce(joined)
            return variables.resolve(other)
        for axis in long[1:]:
            self.join(long[0], axis)
        if product and len(long) > 1:
            self.reduce(long)
        elif not product and len(long) < count:
            self.reduce(long, Level.CENTERED)
        return variables.resolve(long[0])


def axis_rule(*functions: Callable[..., Any]) -> Callable[[AxisRule], AxisRule]:
    """Register a rule for some functions."""

    def register(made: AxisRule) -> AxisRule:
        AXIS_RULES.update(dict.fromkeys(functions, made))
        return made

    return register


def axes_of_result(call: AxisCall, args: Any, kwargs: Any) -> list[Axes | Later] | None:
    """The axes of a call's results; ``None`` if there is no rule or it does not understand the call."""
    found = AXIS_RULES.get(call.func)
    entered = entering(call.func, args, kwargs)
    if found is None or not all(in_sight(tensor) for tensor in [*entered, *tensors_in(call.result)]):
        return None
    axes = understood(found, call, args, kwargs)
    if axes is None or any(call.state.held(each) and id(each) not in call.asked for each in entered):
        return None
    several = axes if isinstance(axes, list) else [axes]
    made = list(tensors_in(call.result))
    if len(several) != len(made):
        return None
    for each, tensor in zip(several, made, strict=True):
        if isinstance(each, Later):
            continue
        if [size_of(axis) for axis in each] != list(tensor.shape):
            return None
        if not tensor.is_floating_point():  # no matrix passes a rounding
            call.reduce(each)
    return several


__all__ = ["AXIS_RULES", "AxisCall", "AxisRule", "axes_of_result", "axis_rule", "named"]
