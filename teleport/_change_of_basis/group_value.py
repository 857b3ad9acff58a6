"""A move by factors, permutations and matrices as a value: to apply, undo and compose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from teleport._change_of_basis.basis_change import BasisChange
from teleport._symmetry_groups.elements import GroupElement
from teleport._symmetry_groups.folding import Folding


@dataclass(frozen=True)
class GroupChange:
    """Elements of a network's groups that act one after the other.

    Attributes:
        parts: in the order in which they act.
    """

    parts: Sequence[BasisChange | Folding | GroupElement]

    def apply(self, model: nn.Module) -> nn.Module:
        """Change the model's parameters, and the statistics of its batch norms, in place.

        Args:
            model: the traced model, or one of the same structure.

        Returns:
            ``model``, which computes the same function.

        Raises:
            ValueError: a tensor is missing or has another shape; then nothing is changed.
        """
        for part in self.parts:
            if isinstance(part, GroupElement):
                part.tensors(model)
        for part in self.parts:
            part.apply(model)
        return model

    def inverse(self) -> GroupChange:
        """The inverse: exact for permutations and signs, up to rounding for factors and matrices."""
        return GroupChange([part.inverse() for part in reversed(self.parts)])

    def compose(self, other: GroupChange) -> GroupChange:
        """This one after ``other``, which is of the same network."""
        return GroupChange([*other.parts, *self.parts])
