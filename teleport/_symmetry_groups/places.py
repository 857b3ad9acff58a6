"""Elements of the Lie algebra of a network's group, and the places of its parameters at which matrices act."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from teleport._symmetry_groups.families import Block, blocks_of
from teleport._symmetry_groups.parts import flat, leading_first, part_of
from teleport._symmetry_groups.symmetries import Symmetries

Tensors = Mapping[str, Tensor]


@dataclass
class Generator:
    """An element of the Lie algebra of a network's group, or of its dual space.

    Attributes:
        logarithms: ``[classes]``, of the factors; one number per class and the class with the inverse factor.
        matrices: of each variable, ``[copies, units, units]``.
    """

    logarithms: Tensor
    matrices: dict[int, Tensor]

    def inner(self, other: Generator) -> float:
        """The sum of the products of all entries."""
        pairs = [(each, other.matrices[variable]) for variable, each in self.matrices.items()]
        return float(self.logarithms @ other.logarithms) + sum(float((one * two).sum()) for one, two in pairs)

    def combined(self, factor: float, other: Generator) -> Generator:
        """``self + factor * other``."""
        matrices = {variable: each + factor * other.matrices[variable] for variable, each in self.matrices.items()}
        return Generator(self.logarithms + factor * other.logarithms, matrices)

    def divided(self, other: Generator) -> Generator:
        """Entry by entry."""
        matrices = {variable: each / other.matrices[variable] for variable, each in self.matrices.items()}
        return Generator(self.logarithms / other.logarithms, matrices)


@dataclass(frozen=True)
class Place:
    """Where a variable acts: a factor of a block of a parameter, with the factors that tell its copies apart first."""

    name: str
    block: Block
    lead: tuple[int, ...]
    dual: bool

    def values(self, tensors: Tensors) -> Tensor:
        """``[copies, units, others]``."""
        return flat(part_of(tensors[self.name], self.block).reshape(self.block.sizes), self.lead)

    def add(self, tensors: Tensors, moves: Tensor) -> None:
        """Add moves, in the form of :meth:`values`, to a tensor."""
        sizes = leading_first(torch.empty(self.block.sizes, device="meta"), self.lead).shape
        part = part_of(tensors[self.name], self.block)
        part += moves.reshape(sizes).movedim(list(range(len(self.lead))), list(self.lead)).reshape(part.shape)


def places_of(name: str, axes: tuple, symmetries: Symmetries) -> Iterator[tuple[int, Place]]:  # type: ignore[type-arg]
    """The places of a tensor at which matrices act."""
    for block in blocks_of(axes):
        for at, variable in enumerate(block.variables):
            if variable in symmetries.levels and symmetries.levels[variable].matrices:
                outer = [block.companion(at, each) for each in symmetries.companions[variable]]
                lead = (*(each for each in outer if each is not None), at)
                yield variable, Place(name, block, lead, block.dual[at])


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient and are real numbers, by name."""
    named = model.named_parameters()
    return {name: each for name, each in named if each.requires_grad and each.is_floating_point()}
