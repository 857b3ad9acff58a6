"""How the entries of an optimizer's state follow a linear move of one parameter.

A gradient is a covector: if ``W' = A W`` and the loss stays, ``dL/dW' = A^-T dL/dW``. Averages of gradients follow by
``A^-T``, copies of the parameter by ``A``. What belongs to single elements (averages of squares, step sizes) follows
permutations and factors alone: a rotation mixes elements, and squares of a mixture are no mixture of squares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from torch import Tensor, nn

from teleport._engine.state_rules import Entry


class Carrier(Protocol):
    """A move of one parameter, as it acts on tensors of the parameter's shape."""

    def hindrance(self, entry: Entry) -> str:
        """Why an entry of this rule cannot follow, a clause that names the parameter; empty if it can."""
        ...

    def carried(self, value: Tensor, entry: Entry) -> Tensor:
        """An entry of the state after the move, in a tensor of its own.

        Args:
            value: of the parameter's shape.
            entry: its rule, without a hindrance.
        """
        ...


Carriers: TypeAlias = Mapping[nn.Parameter, Carrier]
"""Of each parameter that moved."""


@dataclass(frozen=True)
class FactorCarrier:
    """A multiplication by factors.

    Attributes:
        factors: in the shape of the parameter or one that broadcasts to it.
    """

    factors: Tensor

    def hindrance(self, entry: Entry) -> str:
        """Every entry follows factors."""
        return ""

    def carried(self, value: Tensor, entry: Entry) -> Tensor:
        """The value times a power of the factors."""
        return through_factors(value, entry, self.factors)


def through_factors(value: Tensor, entry: Entry, factors: Tensor) -> Tensor:
    """One entry of a state after a multiplication of the parameter by factors."""
    if not isinstance(entry, int):
        return entry(value, factors.to(value))
    return value / (factors**-entry).to(value) if entry < 0 else value * (factors**entry).to(value)
