"""Axes of tensors as units: the variables of group elements, and the constraints between them.

A group element acts on an axis of a tensor. An axis is a concatenation of segments, a segment is a product of factors
in row-major order, and a factor is a variable: ``[heads * dim]`` is one segment of two factors. A variable that is
reshaped or cut is replaced by a product or a concatenation of new ones. Every variable has a level, the largest group
that may act on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple


class Level(IntEnum):
    """The largest group that may act on an axis. :func:`meet` says what two of them have in common."""

    PINNED = 0
    """The identity."""

    TURN = 1
    """Rotations of a plane."""

    SCALED_TURN = 2
    """Rotations of a plane times a factor, as multiplication by a complex number."""

    PERMUTATION = 3
    """Permutations of units."""

    SIGNED = 4
    """Permutations with signs."""

    CENTERED = 5
    """Rotations and reflections that keep the mean of the units."""

    ORTHOGONAL = 6
    """Rotations and reflections."""

    GENERAL = 7
    """Invertible matrices."""

    @property
    def permutes(self) -> bool:
        """Whether the group has all permutations."""
        return self >= Level.PERMUTATION

    @property
    def signs(self) -> bool:
        """Whether the group has all permutations with signs."""
        return self in (Level.SIGNED, Level.ORTHOGONAL, Level.GENERAL)

    @property
    def matrices(self) -> bool:
        """Whether the group is no finite one."""
        return self in (Level.TURN, Level.SCALED_TURN) or self >= Level.CENTERED


def meet(one: Level, other: Level) -> Level:
    """The largest of the groups that is in both."""
    low, high = sorted((one, other))
    if low in (Level.TURN, Level.SCALED_TURN):
        if high in (low, Level.GENERAL):
            return low
        return Level.TURN if high in (Level.SCALED_TURN, Level.ORTHOGONAL) else Level.PINNED
    return Level.PERMUTATION if (low, high) == (Level.SIGNED, Level.CENTERED) else low


FIXED = -1
"""In place of a variable: nothing acts on the axis."""

FEW = 256
"""More segments than this are pinned instead of told apart."""


class Factor(NamedTuple):
    """One factor of an axis: ``dual`` factors carry the inverse transpose of the variable's element."""

    size: int
    variable: int
    dual: bool = False


Segment = tuple[Factor, ...]
Axis = tuple[Segment, ...]

ONE: Axis = ((),)
"""An axis of length 1."""


def transposed(axis: Axis) -> Axis:
    """With the inverse transpose of each element in its place."""
    return tuple(tuple(each._replace(dual=not each.dual) for each in segment) for segment in axis)


def fixed(size: int) -> Axis:
    """An axis on which nothing acts."""
    return ONE if size == 1 else ((Factor(size, FIXED),),)


def size_of(axis: Axis) -> int:
    """The length of an axis."""
    return sum(length_of(segment) for segment in axis)


def factors_in(axes: Iterable[Axis]) -> Iterator[Factor]:
    """The factors of axes that are variables."""
    for axis in axes:
        for segment in axis:
            yield from (factor for factor in segment if factor.variable >= 0)


def length_of(segment: Segment) -> int:
    """The number of elements of a segment."""
    if len(segment) == 1:  # most are
        return segment[0].size
    return math.prod(factor.size for factor in segment)


def parts_of(axis: Axis, start: int, stop: int) -> list[Segment]:
    """The segments from ``start`` to ``stop``, at which no variable must be cut."""
    kept: list[Segment] = []
    position = 0
    for segment in axis:
        length = length_of(segment)
        low, high = max(start, position), min(stop, position + length)
        if low < high:
            if high - low == length:
                kept.append(segment)
            elif all(factor.variable < 0 for factor in segment):
                kept.append((Factor(high - low, FIXED),))
            else:
                inner = length // segment[0].size
                count = (high - low) // inner
                kept.append((*((segment[0]._replace(size=count),) if count > 1 else ()), *segment[1:]))
        position += length
    return kept


def ends_of(axis: Axis) -> list[int]:
    """Where the segments of an axis end, but for the last."""
    places, position = [], 0
    for segment in axis[:-1]:
        position += length_of(segment)
        places.append(position)
    return places


def split_place(segment: Segment, inner: int) -> int | None:
    """The number of factors before the last ``inner`` elements, if these are whole factors."""
    for place in reversed(range(len(segment) + 1)):
        if length_of(segment[place:]) == inner:
            return place
    return None


def merged(segments: Iterable[Segment]) -> Axis:
    """With neighbouring fixed factors and segments as one, and without factors of length 1."""
    whole: list[Segment] = []
    for segment in segments:
        factors: list[Factor] = []
        for factor in segment:
            if factors and factor.variable < 0 and factors[-1].variable == factor.variable:
                factors[-1] = Factor(factors[-1].size * factor.size, factor.variable)
            else:
                factors.append(factor)
        kept = tuple(factors)
        if whole and is_constant(kept) and is_constant(whole[-1]):
            whole[-1] = (Factor(length_of(whole[-1]) + length_of(kept), FIXED),)
        else:
            whole.append(kept)
    return tuple(whole) or ONE


def is_constant(segment: Segment) -> bool:
    """Whether no variable acts on a segment."""
    return all(factor.variable == FIXED for factor in segment)
