"""Tensors of two networks side by side, with the variables that act on each axis of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from teleport._symmetry_groups.axis_action import AxisAction
from teleport._symmetry_groups.axis_state import Axes
from teleport._symmetry_groups.families import Block, blocks_of
from teleport._symmetry_groups.parts import part_of


@dataclass
class Pair:
    """One block of a tensor of both networks.

    Attributes:
        block: which variables act on it.
        first: of the network that stays, of the shape ``block.sizes``, float64.
        second: of the network that moves, as it is now.
    """

    block: Block
    first: Tensor
    second: Tensor

    def places(self, variable: int) -> list[int]:
        """The factors on which a variable acts."""
        return [place for place, each in enumerate(self.block.variables) if each == variable]

    def leading(self, place: int, companions: Sequence[int]) -> list[int]:
        """The factors that tell the copies of a variable's element apart, then ``place`` itself."""
        outer = [self.block.companion(place, each) for each in companions]
        return [*(at for at in outer if at is not None), place]

    def moved(self, actions: Sequence[AxisAction]) -> Pair:
        """Another pair, whose second side the actions have moved."""
        values = self.second
        for each in actions:
            if each.variable in self.block.variables:
                values = each.on(values, self.block)
        return Pair(self.block, self.first, values)

    def inner(self) -> float:
        """The inner product of both sides."""
        return float((self.first * self.second).sum())


def pairs_of(
    axes: Mapping[str, Axes], first: Mapping[str, Tensor], second: Mapping[str, Tensor], acting: Collection[int]
) -> list[Pair]:
    """The blocks on which something acts.

    Args:
        axes: of the tensors, by name.
        first, second: the tensors of both networks, float64, by name.
        acting: the variables that count.
    """
    pairs = []
    for name in first:
        for block in blocks_of(axes.get(name, ())):
            if any(each in acting for each in block.variables):
                one, other = (part_of(side[name], block).reshape(block.sizes) for side in (first, second))
                pairs.append(Pair(block, one, other))
    return pairs
