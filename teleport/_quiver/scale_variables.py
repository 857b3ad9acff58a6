"""Scale variables, the constraints between them, and the classes that follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from teleport._quiver.quiver import Freedom
from teleport._quiver.scale_indices import compact, compacts


@dataclass(frozen=True)
class Classes:
    """The classes of all scale variables.

    Attributes:
        of: ``[variables]``, the class of each; 0 for those that carry 1.
        freedom: ``[classes]`` of :class:`Freedom`.
        inverse: ``[classes]``, the class of the inverse factor, or -1.
        reason: ``[variables]``, the number of the reason why a scale variable is pinned or only positive, or -1.
        reasons: by number.
    """

    of: Tensor
    freedom: Tensor
    inverse: Tensor
    reason: Tensor
    reasons: Sequence[str]


@dataclass(frozen=True)
class Constraints:
    """What is known of scale variables; variable 0 is 1.

    Attributes:
        count: how many variables there are.
        equal: pairs of equally long tensors of variables that are equal, element by element.
        inverse: the same of variables whose product is 1.
        pinned: variables that are 1, with the reason.
        positive: variables that are positive, with the reason.
    """

    count: int
    equal: tuple[tuple[Tensor, Tensor], ...] = ()
    inverse: tuple[tuple[Tensor, Tensor], ...] = ()
    pinned: tuple[tuple[Tensor, str], ...] = ()
    positive: tuple[tuple[Tensor, str], ...] = ()


class ScaleVariables:
    """Collects the constraints of an evaluation: scale variables that are equal, inverse, positive or pinned to 1.

    Scale variable 0 is 1.
    """

    def __init__(self) -> None:
        self.count = 1
        self._equal: list[tuple[Tensor, Tensor]] = []
        self._inverse: list[tuple[Tensor, Tensor]] = []
        self._pinned: list[tuple[Tensor, str]] = []
        self._positive: list[tuple[Tensor, str]] = []

    def fresh(self, shape: Sequence[int]) -> Tensor:
        """New scale variables, one an element."""
        first, self.count = self.count, self.count + math.prod(shape)
        return torch.arange(first, self.count).reshape(tuple(shape))

    def pin(self, scale_index: Tensor, reason: str) -> None:
        """These scale variables carry 1."""
        self._pinned.append((compact(scale_index).flatten(), reason))

    def only_positive(self, scale_index: Tensor, reason: str) -> None:
        """These scale variables carry positive factors."""
        self._positive.append((compact(scale_index).flatten(), reason))

    def join(self, scale_index: Tensor, other: Tensor, reason: str, inverse: bool = False) -> None:
        """Scale variables at the same place carry the same factor, or one its ``inverse``; shapes broadcast.

        Args:
            scale index, other: of the two.
            reason: for a scale variable that meets none, and must carry 1.
            inverse: whether the two factors' product is 1.
        """
        first, second = compacts(scale_index, other)
        if inverse:
            first, second = first.flatten(), second.flatten()
        else:
            differ = first != second
            first, second = first[differ], second[differ]
        constrained = (first != 0) & (second != 0)
        if not bool(constrained.all()):
            self.pin((first + second)[~constrained], reason)
        (self._inverse if inverse else self._equal).append((first[constrained], second[constrained]))

    @property
    def constraints(self) -> Constraints:
        """All that is known so far."""
        return Constraints(
            self.count, tuple(self._equal), tuple(self._inverse), tuple(self._pinned), tuple(self._positive)
        )

    def copy(self) -> ScaleVariables:
        """The same variables and constraints, to add others to."""
        copied = ScaleVariables()
        copied.count = self.count
        copied._equal, copied._inverse = list(self._equal), list(self._inverse)
        copied._pinned, copied._positive = list(self._pinned), list(self._positive)
        return copied


def constrained(constraints: Constraints) -> Tensor:
    """``[variables]``, whether any constraint names each."""
    named = [side for pair in (*constraints.equal, *constraints.inverse) for side in pair]
    named += [variables for variables, _ in (*constraints.pinned, *constraints.positive)]
    found = torch.zeros(constraints.count, dtype=torch.bool)
    for variables in named:
        found[variables] = True
    return found


def solve(constraints: Constraints) -> Classes:
    """Solve for the classes of scale variables that the constraints leave free.

    Each scale variable is two nodes, its factor and the factor's inverse; an edge joins equal ones. A scale variable
    that is in one component with its own inverse could carry -1 at most and is pinned.
    """
    n = constraints.count
    ones, others = (
        torch.cat([empty(), *(p[i] for p in constraints.equal), *(p[i] + n for p in constraints.equal)]) for i in (0, 1)
    )
    left, right = (torch.cat([empty(), *(p[i] for p in constraints.inverse)]) for i in (0, 1))
    component = components(2 * n, torch.cat([ones, left, left + n]), torch.cat([others, right + n, right]))
    factor, inverted = component[:n], component[n:]
    pins = [*constraints.pinned, ((factor == inverted).nonzero().flatten(), "it would be its own inverse")]
    notes = [*pins, *constraints.positive]
    why = torch.full((2 * n,), -1)
    for number in reversed(range(len(notes))):  # the first reason stays
        variables = notes[number][0]
        variables = variables[variables != 0]
        why[factor[variables]] = why[inverted[variables]] = number
    reason = why[factor]
    freedom_of = torch.where(
        reason < 0, Freedom.NONZERO, torch.where(reason < len(pins), Freedom.PINNED, Freedom.POSITIVE)
    )
    freedom_of[0] = Freedom.PINNED
    return Classes(*_numbered(factor, inverted, freedom_of), reason, [text for _, text in notes])


def _numbered(factor: Tensor, inverted: Tensor, freedom_of: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each scale variable's class, each class's freedom, and its inverse, from the scale variables' components."""
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
    """No scale variables."""
    return torch.zeros(0, dtype=torch.int64)


def components(count: int, left: Tensor, right: Tensor) -> Tensor:
    """The connected components of a graph of ``count`` nodes and the edges ``left[i] - right[i]``.

    Each is named by its smallest node: roots are attached to smaller neighbours until no edge joins two roots.
    """
    root = torch.arange(count)
    while True:
        low, high = torch.minimum(root[left], root[right]), torch.maximum(root[left], root[right])
        if torch.equal(low, high):
            return root
        root.scatter_reduce_(0, high, low, "amin")
        while not torch.equal(further := root[root], root):
            root = further
