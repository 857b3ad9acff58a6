"""Which variables may carry another element per unit of others: a matrix per head, a permutation per group.

An axis ``d`` may carry an element of its own per unit of an axis ``h`` if no tensor of the evaluation has ``d`` without
``h``: then no two units of ``h`` ever meet in ``d``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from teleport._symmetry_groups.axes import AxisVariables
from teleport._symmetry_groups.axis import FEW, FIXED, Axis, Level
from teleport._symmetry_groups.axis_state import Axes


@dataclass(frozen=True)
class Block:
    """A part of a tensor with one segment per axis.

    Attributes:
        spans: per axis, its first element and the length.
        sizes: of the factors of all axes, in order.
        variables: of each factor, negative if nothing acts on it.
        dual: of each factor.
        axes: the axis of each factor.
    """

    spans: tuple[tuple[int, int], ...]
    sizes: tuple[int, ...]
    variables: tuple[int, ...]
    dual: tuple[bool, ...]
    axes: tuple[int, ...]

    def companion(self, place: int, variable: int) -> int | None:
        """The factor whose units tell apart the elements of the factor at ``place``: the one on the same axis, or the
        only one; ``None`` if there is none."""
        found = [at for at, each in enumerate(self.variables) if each == variable and at != place]
        near = [at for at in found if self.axes[at] == self.axes[place]]
        chosen = near or found
        return chosen[0] if len(chosen) == 1 else None

    def moves_rows(self, actions: Mapping[int, Collection[int]]) -> bool:
        """Whether a row after some actions is computed from other rows, or by its number.

        Args:
            actions: variable of each action -> the variables per unit of which it is another one.
        """
        in_rows = {variable for variable, axis in zip(self.variables, self.axes, strict=True) if axis == 0}
        return any(
            variable in actions and (variable in in_rows or not in_rows.isdisjoint(actions[variable]))
            for variable in self.variables
        )

    def in_rows(self, first: int, end: int) -> Block | None:
        """The part of the block in a range of the tensor's rows, whose first one is row 0 of it; ``None`` if empty.

        Nothing acts on the rows of the part.
        """
        start, length = self.spans[0]
        low, high = max(first, start), min(end, start + length)
        if low >= high:
            return None
        others = [place for place, axis in enumerate(self.axes) if axis]
        return Block(
            ((low - first, high - low), *self.spans[1:]),
            (high - low, *(self.sizes[place] for place in others)),
            (FIXED, *(self.variables[place] for place in others)),
            (False, *(self.dual[place] for place in others)),
            (0, *(self.axes[place] for place in others)),
        )


def blocks_of(axes: Sequence[Axis]) -> Iterator[Block]:
    """The blocks of a tensor with these axes, which are resolved."""
    for choice in itertools.product(*(_placed(axis) for axis in axes)):
        factors = [(axis, factor) for axis, (_, _, segment) in enumerate(choice) for factor in segment]
        yield Block(
            tuple((start, length) for start, length, _ in choice),
            tuple(factor.size for _, factor in factors),
            tuple(factor.variable for _, factor in factors),
            tuple(factor.dual for _, factor in factors),
            tuple(axis for axis, _ in factors),
        )


def companions_of(variables: AxisVariables, contexts: Iterable[Axes]) -> dict[int, tuple[int, ...]]:
    """Per variable: those whose units may each have another element of it.

    Args:
        variables: with all constraints.
        contexts: the axes of all tensors that have the variable.
    """
    together: dict[int, set[int]] = {}
    seen = {tuple(variables.resolve(axis) for axis in axes) for axes in contexts}
    for axes in seen:
        if math.prod(len(axis) for axis in axes) > FEW:
            for axis in axes:
                together.update({factor.variable: set() for segment in axis for factor in segment})
            continue
        for block in blocks_of(axes):
            present = {each for each in block.variables if each >= 0}
            for place, each in enumerate(block.variables):
                if each >= 0:
                    found = {other for other in present if block.companion(place, other) is not None}
                    together[each] = together[each] & found if each in together else found
    return _acyclic(variables, together)


def _acyclic(variables: AxisVariables, together: dict[int, set[int]]) -> dict[int, tuple[int, ...]]:
    """Without circles: larger groups depend on smaller ones, also on pinned axes, and inner factors on outer ones."""
    chosen: dict[int, tuple[int, ...]] = {}

    def depends(variable: int, on: int) -> bool:
        return variable == on or any(depends(each, on) for each in chosen.get(variable, ()))

    for variable in sorted(together, key=lambda each: (-variables.level[each], -each) if each >= 0 else (0, 0)):
        if variable < 0 or variables.level[variable] == Level.PINNED:
            continue
        allowed = [other for other in sorted(together[variable]) if other != variable and not depends(other, variable)]
        chosen[variable] = tuple(allowed)
    return chosen


def _placed(axis: Axis) -> list[tuple[int, int, tuple]]:  # type: ignore[type-arg]
    placed, start = [], 0
    for segment in axis:
        length = math.prod(factor.size for factor in segment)
        placed.append((start, length, segment))
        start += length
    return placed
