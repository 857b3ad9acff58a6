"""Results whose axes are decided by what reads them: squares that are summed to a norm, halves that are turned.

``x.pow(2)`` keeps permutations alone, ``x.pow(2).mean(-1)`` all rotations. The two halves of an axis have elements of
their own, but not if they are put together again as a rotary embedding does. So the axes of such a result are set when
a function reads it that does not know the form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from teleport._symmetry_groups.axis import Axis

Layout = Literal["halves", "pairs", "axis"]
"""How an axis holds two parts: one after the other, in turn, or as an axis of length 2."""

Term = tuple[int, tuple[Tensor, int] | None]
"""A sign, and a constant with its version."""


@dataclass(frozen=True)
class Square:
    """The elementwise square of ``of``."""

    of: Tensor


@dataclass(frozen=True)
class Complex:
    """The complex numbers of ``of``, whose last axis holds real and imaginary parts, times ``constants``."""

    of: Tensor
    constants: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Mixture:
    """A sum of the two parts of a tensor's axis, each times a sign and, maybe, a constant tensor.

    Attributes:
        of: the tensor.
        dim: its axis, counted from the last.
        layout: of the parts in the axis.
        terms: part (0 or 1) -> sign, and constant with its version then.
        version: of the tensor when its part was taken; a form of another one is void.
    """

    of: Tensor
    dim: int
    layout: Layout
    terms: Mapping[int, Term]
    version: int

    @property
    def holds(self) -> bool:
        """Whether the tensor was not written to since."""
        return self.of._version == self.version

    def negative(self) -> Mixture:
        """With the other signs."""
        turned = {part: (-sign, constant) for part, (sign, constant) in self.terms.items()}
        return replace(self, terms=turned)

    def times(self, constant: Tensor) -> Mixture | None:
        """Times a constant; ``None`` if it has one or is a sum."""
        if len(self.terms) > 1 or any(held is not None for _, held in self.terms.values()):
            return None
        terms = {part: (sign, (constant, constant._version)) for part, (sign, _) in self.terms.items()}
        return replace(self, terms=terms)

    def plus(self, other: Mixture) -> Mixture | None:
        """The sum of two, of one part each; ``None`` if they do not match."""
        if not self.matches(other) or set(self.terms) & set(other.terms):
            return None
        return replace(self, terms={**self.terms, **other.terms})

    def matches(self, other: Mixture) -> bool:
        """Whether both are of the parts of one axis."""
        alike = (self.dim, self.layout, self.version) == (other.dim, other.layout, other.version)
        return self.of is other.of and alike

    def turns(self, other: Mixture) -> bool:
        """Whether this and the other, as parts 0 and 1, are the parts times one complex number: ``a x0 + b x1`` and
        ``a x1 - b x0``."""
        if not self.matches(other):
            return False
        return _same(self.terms.get(0), other.terms.get(1), 1) and _same(self.terms.get(1), other.terms.get(0), -1)

    @property
    def constants(self) -> list[Tensor]:
        """The constants of all terms."""
        return [constant[0] for _, constant in self.terms.values() if constant is not None]


@dataclass
class Later:
    """A result whose axes are not decided yet.

    Attributes:
        form: what it is.
        settle: decides them, with the constraints, for a function that does not know the form.
        tensor: the result.
    """

    form: Square | Complex | Mixture
    settle: Callable[[], tuple[Axis, ...]]
    tensor: Tensor | None = field(default=None)


def _same(one: Term | None, other: Term | None, sign: int) -> bool:
    if one is None or other is None:
        return one is other
    if one[0] != sign * other[0] or one[1] is None or other[1] is None:
        return one[0] == sign * other[0] and one[1] is other[1]
    return one[1][0] is other[1][0] and one[1][1] == other[1][1]
