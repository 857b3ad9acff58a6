"""The variables of axes: which are equal, dual or composed of others, and what reduces the group of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from teleport._symmetry_groups.axis import (
    FEW,
    FIXED,
    ONE,
    Axis,
    Factor,
    Level,
    Segment,
    ends_of,
    factors_in,
    fixed,
    length_of,
    meet,
    merged,
    parts_of,
    size_of,
    split_place,
    transposed,
)


class AxisVariables:
    """Collects which variables are equal, dual, composed of others, and what reduces the level of each.

    Attributes:
        level: of each variable.
        reasons: of each variable, why its level was reduced, in the order of reductions.
    """

    def __init__(self) -> None:
        self.level: list[Level] = []
        self.reasons: list[list[str]] = []
        self._links: list[Axis | None] = []
        self._inner: set[int] = set()  # inner factors of a product, which are not cut
        self._copied: set[int] = set()  # along which all elements of each tensor are equal

    def fresh(self, size: int) -> Axis:
        """An axis with a variable of its own."""
        return ONE if size == 1 else ((self._variable(size, Level.GENERAL, []),),)

    def copies(self, size: int) -> Axis:
        """An axis along which all elements are equal, so that any permutation keeps them."""
        axis = self.fresh(size)
        self._copied |= {factor.variable for factor in factors_in([axis])}
        self.reduce([axis], Level.PERMUTATION, "its elements are copies")
        return axis

    def resolve(self, axis: Axis) -> Axis:
        """The axis in terms of variables that are not composed of others."""
        if all(factor.variable < 0 or self._links[factor.variable] is None for each in axis for factor in each):
            return axis
        segments: list[Segment] = []
        for segment in axis:
            segments += self._resolved(segment)
        return merged(segments)

    def reduce(self, axes: Iterable[Axis], level: Level, reason: str) -> None:
        """Reduce the group of all variables of these axes."""
        for axis in axes:
            for factor in factors_in([self.resolve(axis)]):
                if level == Level.PINNED:
                    self._copied.discard(factor.variable)  # what pins it may have changed elements
                left = meet(self.level[factor.variable], level)
                if left != self.level[factor.variable]:
                    self.level[factor.variable] = left
                    self.reasons[factor.variable].append(reason)

    def join(self, first: Axis, second: Axis, reason: str, dual: bool = False) -> None:
        """The same element acts on both axes, or on the second its inverse transpose.

        Args:
            first, second: of one length.
            reason: for variables that meet what carries another group.
            dual: whether the two axes are contracted with each other.
        """
        if size_of(first) != size_of(second):
            raise ValueError("axes of different lengths do not join")
        first, second = self.resolve(first), self.resolve(second)
        if self._adopted(first, second, dual):
            return
        for one, two in self._pieces(first, second, reason):
            pairs = self._pairs(one, two)
            if pairs is None:
                for segment in (one, two):
                    self._fix(self._whole(segment), reason)
                continue
            for left, right in pairs:
                self._join_factors(self._root(left), self._root(right), reason, dual)

    def cut(self, axis: Axis, start: int, stop: int, reason: str) -> Axis:
        """The part of an axis from ``start`` to ``stop``, which carries an element of its own."""
        for place in (start, stop):
            while self._cut_at(self.resolve(axis), place, reason):
                pass
        return merged(parts_of(self.resolve(axis), start, stop))

    def split(self, axis: Axis, sizes: Sequence[int], reason: str) -> list[Axis]:
        """One axis per size, of an axis that is reshaped to ``sizes``."""
        long = [size for size in sizes if size > 1]
        parts = iter(self._split(axis, long, reason))
        return [next(parts) if size > 1 else ONE for size in sizes]

    def copied(self, axis: Axis) -> bool:
        """Whether a factor of the axis, of one segment, is one along which all elements are equal."""
        axis = self.resolve(axis)
        return len(axis) == 1 and any(factor.variable in self._copied for factor in axis[0])

    def join_varying(self, first: Axis, second: Axis, reason: str) -> list[Axis]:
        """Join with ``second``, of one segment, those of its factors along which elements differ.

        Returns:
            The parts of ``first`` that were joined.
        """
        factors = self.resolve(second)[0]
        joined = []
        for part, factor in zip(self.split(first, [each.size for each in factors], reason), factors, strict=True):
            if factor.variable not in self._copied:
                self.join(part, ((factor,),), reason)
                joined.append(part)
        return joined

    def product(self, axes: Sequence[Axis]) -> Axis:
        """The axis of several that are flattened."""
        whole: list[Segment] = [()]
        for axis in axes:
            whole = self._times(whole, list(self.resolve(axis)))
        return self.resolve(merged(whole))

    def _adopted(self, first: Axis, second: Axis, dual: bool) -> bool:
        """Whether ``second`` was one variable of which nothing was known, and is the first axis now: what its cuts at
        all ends of the other's segments would come to, at the cost of one."""
        variable = second[0][0].variable if len(second) == 1 and len(second[0]) == 1 else FIXED
        if variable < 0 or variable in self._inner or variable in self._copied:
            return False
        factors = [factor for segment in first for factor in segment]
        if self.level[variable] != Level.GENERAL or any(each.variable in (FIXED, variable) for each in factors):
            return False
        self._copied.difference_update(each.variable for each in factors)
        self._links[variable] = transposed(first) if dual != second[0][0].dual else first
        return True

    def _split(self, axis: Axis, sizes: list[int], reason: str) -> list[Axis]:
        if len(sizes) < 2:
            return [self.resolve(axis)] * len(sizes)
        axis = self.resolve(axis)
        inner = math.prod(sizes[1:])
        if len(axis) > 1:  # blocks that carry the same element
            if sizes[0] > FEW:
                self.reduce([axis], Level.PINNED, reason)
                return [fixed(size) for size in sizes]
            blocks = [self.cut(axis, start, start + inner, reason) for start in range(0, sizes[0] * inner, inner)]
            for block in blocks[1:]:
                self.join(blocks[0], block, reason)
            return [fixed(sizes[0]), *self._split(blocks[0], sizes[1:], reason)]
        while True:
            segment = self.resolve(axis)[0]
            place = split_place(segment, inner)
            if place is not None:
                return [merged([segment[:place]]), *self._split((segment[place:],), sizes[1:], reason)]
            if not self._divide(segment, inner):
                self.reduce([axis], Level.PINNED, reason)
                return [fixed(size) for size in sizes]
            axis = self.resolve(axis)

    def _divide(self, segment: Segment, inner: int) -> bool:
        """Split the factor in which the last ``inner`` elements begin; whether that was possible."""
        for factor in reversed(segment):
            if inner % factor.size == 0:
                inner //= factor.size
                continue
            if factor.size % inner or factor.variable < 0:
                return False
            self._link_product(factor, inner)
            return True
        return False

    def _resolved(self, segment: Segment) -> list[Segment]:
        whole: list[Segment] = [()]
        for factor in segment:
            link = None if factor.variable < 0 else self._links[factor.variable]
            if link is None:
                whole = [(*each, factor) for each in whole]
                continue
            turned = transposed(self.resolve(link)) if factor.dual else self.resolve(link)
            whole = self._times(whole, list(turned))
        return whole

    def _times(self, outer: list[Segment], inner: list[Segment]) -> list[Segment]:
        """The segments of a product of axes. Several inner segments repeat per outer element, which is fixed then."""
        if len(inner) == 1:
            return [(*each, *inner[0]) for each in outer]
        if outer == [()]:
            return inner
        self.reduce([tuple(outer)], Level.PINNED, "it interleaves with axes of several parts")
        count = size_of(tuple(outer))
        if count * len(inner) > FEW:
            self.reduce([tuple(inner)], Level.PINNED, "it interleaves with axes of several parts")
            return [(Factor(count * size_of(tuple(inner)), FIXED),)]
        return inner * count

    def _pieces(self, first: Axis, second: Axis, reason: str) -> list[tuple[Segment, Segment]]:
        """Both axes cut at the ends of the segments of either, into one segment each."""
        while True:
            first, second = self.resolve(first), self.resolve(second)
            one, two = set(ends_of(first)), set(ends_of(second))
            places = sorted({0, size_of(first)} | one | two)
            cuts = [(first, each) for each in sorted(two - one)] + [(second, each) for each in sorted(one - two)]
            if not any(self._cut_at(axis, place, reason) for axis, place in cuts):
                break
        spans = list(pairwise(places))
        return [(parts_of(first, *span)[0], parts_of(second, *span)[0]) for span in spans]

    def _pairs(self, one: Segment, two: Segment) -> list[tuple[Factor, Factor]] | None:
        """The factors of two segments side by side, split where they are of different sizes; ``None`` if none fit."""
        while True:
            one, two = self._whole(one), self._whole(two)
            left, right = list(one), list(two)
            pairs: list[tuple[Factor, Factor]] = []
            divided = False
            while left and right and not divided:
                size = min(left[-1].size, right[-1].size)
                ends = []
                for factors in (left, right):
                    factor = factors.pop()
                    if factor.size % size:
                        return None
                    if factor.size > size and factor.variable >= 0:
                        self._link_product(factor, size)
                        divided = True
                    elif factor.size > size:
                        factors.append(factor._replace(size=factor.size // size))
                    ends.append(factor._replace(size=size))
                pairs.append((ends[0], ends[1]))
            if not divided:
                return pairs

    def _whole(self, segment: Segment) -> Segment:
        """The segment resolved, which stays one, as variables are only divided into products meanwhile."""
        return self.resolve((segment,))[0]

    def _cut_at(self, axis: Axis, place: int, reason: str) -> bool:
        """Cut the variable in which ``place`` lies; whether anything changed."""
        position = 0
        for segment in axis:
            length = length_of(segment)
            if position < place < position + length:
                if all(factor.variable < 0 for factor in segment):
                    return False
                head, inner = segment[0], length // segment[0].size
                if (place - position) % inner or head.variable in self._inner:
                    self._fix(segment, reason)
                    return True
                if head.variable < 0:
                    return False
                count = (place - position) // inner
                sizes = (count, head.size - count)
                parts = [(self._child(head, size),) if size > 1 else () for size in sizes]
                self._links[head.variable] = merged(parts)
                return True
            position += length
        return False

    def _fix(self, segment: Segment, reason: str) -> None:
        """Nothing acts on the factors, and their units are not told apart any more."""
        self.reduce([(segment,)], Level.PINNED, reason)
        for factor in self._whole(segment):
            if factor.variable >= 0:
                self._links[factor.variable] = fixed(factor.size)

    def _link_product(self, factor: Factor, inner: int) -> None:
        parts = [self._child(factor, size) for size in (factor.size // inner, inner)]
        self._inner.add(parts[1].variable)
        if factor.variable in self._inner:
            self._inner.add(parts[0].variable)
        self._links[factor.variable] = (tuple(parts),)

    def _child(self, factor: Factor, size: int) -> Factor:
        made = self._variable(size, self.level[factor.variable], self.reasons[factor.variable])
        if factor.variable in self._copied:
            self._copied.add(made.variable)
        return made

    def _variable(self, size: int, level: Level, reasons: Sequence[str]) -> Factor:
        self.level.append(level)
        self.reasons.append(list(reasons))
        self._links.append(None)
        return Factor(size, len(self.level) - 1)

    def _root(self, factor: Factor) -> Factor:
        axis = self.resolve(((factor,),))
        return axis[0][0]

    def _join_factors(self, left: Factor, right: Factor, reason: str, dual: bool) -> None:
        if left.variable < 0 or right.variable < 0:
            for one, other in ((left, right), (right, left)):
                if one.variable < 0:
                    self.reduce([((other,),)], Level.PINNED, reason)
            return
        turned = dual != (left.dual != right.dual)
        if left.variable == right.variable:
            if turned:
                self.reduce([((left,),)], Level.ORTHOGONAL, f"{reason}, where it meets its own inverse")
            return
        keep, gone = left.variable, right.variable
        if gone in self._inner:
            self._inner.add(keep)
        self.level[keep] = meet(self.level[keep], self.level[gone])
        if gone not in self._copied:
            self._copied.discard(keep)
        self.reasons[keep] += [each for each in self.reasons[gone] if each not in self.reasons[keep]]
        self._links[gone] = ((Factor(left.size, keep, turned),),)
