"""What acts on the units of one variable: an order, signs, a matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from teleport._symmetry_groups.families import Block


@dataclass(frozen=True)
class AxisAction:
    """What acts on one variable.

    Attributes:
        variable: of the axes.
        companions: variables, each unit of which has its own element.
        order: ``[copies, units]``: unit ``i`` becomes what unit ``order[i]`` was; ``None`` for the identity.
        signs: ``[copies, units]``, by which units are multiplied before; or ``None``.
        matrix: ``[copies, units, units]``, float64, that multiplies the axis; or ``None``.
        inverse: of ``matrix``.
    """

    variable: int
    companions: tuple[int, ...]
    order: Tensor | None = None
    signs: Tensor | None = None
    matrix: Tensor | None = None
    inverse: Tensor | None = None

    def inverted(self) -> AxisAction:
        """The inverse action."""
        order = None if self.order is None else self.order.argsort(1)
        signs = self.signs
        if signs is not None and self.order is not None:
            signs = signs.gather(1, self.order)
        return AxisAction(self.variable, self.companions, order, signs, self.inverse, self.matrix)

    def cotangent(self) -> AxisAction:
        """The inverse transpose, by which gradients follow; permutations with signs are their own."""
        if self.matrix is None or self.inverse is None:
            return self
        return replace(self, matrix=self.inverse.mT, inverse=self.matrix.mT)

    @property
    def mixes(self) -> bool:
        """Whether a matrix mixes units."""
        return self.matrix is not None and self.matrix.shape[-1] > 1

    def on(self, values: Tensor, block: Block) -> Tensor:
        """The values of a block after the action.

        Args:
            values: of the shape ``block.sizes``.
            block: which factors they have.
        """
        for place, variable in enumerate(block.variables):
            if variable == self.variable:
                outer = [block.companion(place, each) for each in self.companions]
                first = [*(at for at in outer if at is not None), place]
                if self.matrix is None and first == list(range(first[0], place + 1)):
                    values = self._reordered(values, first)
                    continue
                moved = values.movedim(first, list(range(len(first))))
                copies = math.prod(moved.shape[: len(first) - 1])
                flat = moved.reshape(copies, moved.shape[len(first) - 1], -1)
                acted = self._act(flat, block.dual[place]).reshape(moved.shape)
                values = acted.movedim(list(range(len(first))), first)
        return values

    def _reordered(self, values: Tensor, places: Sequence[int]) -> Tensor:
        """Signs and order on neighbouring axes of the copies and the units, in one pass without moving axes."""
        shape = values.shape
        joined = values.reshape(*shape[: places[0]], -1, *shape[places[-1] + 1 :])
        if self.signs is not None:
            others = joined.dim() - places[0] - 1
            joined = joined * self.signs.to(values).reshape(-1, *[1] * others)
        if self.order is not None:
            starts = torch.arange(len(self.order))[:, None] * self.order.shape[1]
            joined = joined.index_select(places[0], (starts + self.order).flatten().to(values.device))
        return joined.reshape(shape)

    def _act(self, values: Tensor, dual: bool) -> Tensor:
        """On ``values [copies, units, others]``."""
        if self.matrix is not None and self.inverse is not None:
            matrix = self.inverse.mT if dual else self.matrix
            values = torch.bmm(matrix.to(values), values)
        if self.signs is not None:
            values = values * self.signs.to(values)[..., None]
        if self.order is not None:
            copies = torch.arange(len(self.order), device=values.device)[:, None]
            values = values[copies, self.order.to(values.device)]
        return values
