"""Units, what is known of their factors, and the classes that follow from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from teleport._quiver.quiver import Freedom
from teleport._quiver.scale_indices import compact, compacts


@dataclass
class Classes:
    """The classes of all units.

    Attributes:
        of: ``[units]``, the class of each; 0 for those that carry 1.
        freedom: ``[classes]`` of :class:`Freedom`.
        inverse: ``[classes]``, the class of the inverse factor, or -1.
        reason: ``[units]``, the number of the reason why a unit is pinned or only positive, or -1.
        reasons: by number.
    """

    of: Tensor
    freedom: Tensor
    inverse: Tensor
    reason: Tensor
    reasons: Sequence[str]


class ScaleVariables:
    """Collects what an evaluation says of units: equal, inverse to each other, positive, pinned to 1. Unit 0 is 1."""

    def __init__(self) -> None:
        self.count = 1
        self._equal: list[tuple[Tensor, Tensor]] = []
        self._inverse: list[tuple[Tensor, Tensor]] = []
        self._pinned: list[tuple[Tensor, str]] = []
        self._positive: list[tuple[Tensor, str]] = []

    def fresh(self, shape: Sequence[int]) -> Tensor:
        """New units, one an element."""
        first, self.count = self.count, self.count + math.prod(shape)
        return torch.arange(first, self.count).reshape(tuple(shape))

    def pin(self, label: Tensor, reason: str) -> None:
        """These units carry 1."""
        self._pinned.append((compact(label).flatten(), reason))

    def only_positive(self, label: Tensor, reason: str) -> None:
        """These units carry positive factors."""
        self._positive.append((compact(label).flatten(), reason))

    def join(self, label: Tensor, other: Tensor, reason: str, inverse: bool = False) -> None:
        """Units at the same place carry the same factor, or one its ``inverse``; shapes broadcast.

        Args:
            label, other: of the two.
            reason: for a unit that meets none, and must carry 1.
            inverse: whether the two factors' product is 1.
        """
        first, second = compacts(label, other)
        if inverse:
            first, second = first.flatten(), second.flatten()
        else:
            differ = first != second
            first, second = first[differ], second[differ]
        constrained = (first != 0) & (second != 0)
        if not bool(constrained.all()):
            self.pin((first + second)[~constrained], reason)
        (self._inverse if inverse else self._equal).append((first[constrained], second[constrained]))

    def constrained(self) -> Tensor:
        """``[units]``, whether anything has been said of each."""
        said = [side for pair in (*self._equal, *self._inverse) for side in pair]
        said += [units for units, _ in (*self._pinned, *self._positive)]
        constrained = torch.zeros(self.count, dtype=torch.bool)
        for units in said:
            constrained[units] = True
        return constrained

    def classes(self) -> Classes:
        """Solve for what all that was said leaves free.

        Each unit is two nodes, its factor and the factor's inverse; an edge joins equal ones. A unit that is in one
        component with its own inverse could carry -1 at most and is pinned.
        """
        n = self.count
        ones, others = (
            torch.cat([empty(), *(p[i] for p in self._equal), *(p[i] + n for p in self._equal)]) for i in (0, 1)
        )
        left, right = (torch.cat([empty(), *(p[i] for p in self._inverse)]) for i in (0, 1))
        component = components(2 * n, torch.cat([ones, left, left + n]), torch.cat([others, right + n, right]))
        factor, inverted = component[:n], component[n:]
        pins = [*self._pinned, ((factor == inverted).nonzero().flatten(), "it would be its own inverse")]
        notes = [*pins, *self._positive]
        why = torch.full((2 * n,), -1)
        for number in reversed(range(len(notes))):  # the first reason stays
            units = notes[number][0]
            units = units[units != 0]
            why[factor[units]] = why[inverted[units]] = number
        reason = why[factor]
        freedom_of = torch.where(
            reason < 0, Freedom.NONZERO, torch.where(reason < len(pins), Freedom.PINNED, Freedom.POSITIVE)
        )
        freedom_of[0] = Freedom.PINNED
        return Classes(*_numbered(factor, inverted, freedom_of), reason, [text for _, text in notes])


def _numbered(factor: Tensor, inverted: Tensor, freedom_of: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each unit's class, each class's freedom, and its inverse, from the units' components."""
    free = freedom_of != Freedom.PINNED
    number = torch.zeros(2 * len(factor), dtype=torch.int64)
    taken = torch.zeros_like(number, dtype=torch.bool)
    taken[factor[free]] = True
    number[taken] = torch.arange(1, int(taken.sum()) + 1)
    of = torch.where(free, number[factor], 0)
    count = int(taken.sum()) + 1
    freedom = torch.zeros(count, dtype=torch.int64)
    freedom[of] = freedom_of
    inverse = torch.full((count,), -1)
    other = number[inverted]
    partnered = free & (other != 0)
    inverse[of[partnered]] = other[partnered]
    return of, freedom, inverse


def empty() -> Tensor:
    """No units."""
    return torch.zeros(0, dtype=torch.int64)


def components(count: int, left: Tensor, right: Tensor) -> Tensor:
    """The connected components of a graph of ``count`` nodes and the edges ``left[i] - right[i]``.

    Each is named by its smallest node: roots hook to smaller neighbours until no edge joins two roots.
    """
    root = torch.arange(count)
    while True:
        low, high = torch.minimum(root[left], root[right]), torch.maximum(root[left], root[right])
        if torch.equal(low, high):
            return root
        root.scatter_reduce_(0, high, low, "amin")
        while not torch.equal(further := root[root], root):
            root = further
