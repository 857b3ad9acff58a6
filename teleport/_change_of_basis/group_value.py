"""A move by factors, permutations and matrices as a value: to apply, undo and compose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.multiplication import multiplications_of
from teleport._engine.carriers import Carrier, through_factors
from teleport._engine.held_tensors import HeldTensors, move_tensors
from teleport._engine.sharded import as_shards
from teleport._engine.state_rules import Entry
from teleport._symmetry_groups.elements import GroupElement
from teleport._symmetry_groups.folding import Folding
from teleport._tracing.replicas import is_sharded, shards_again


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
            model: the traced model, or one of the same structure. Of one that is sharded over processes, all of these
                call this, and a parameter whose rows are mixed is gathered, one at a time.

        Returns:
            ``model``, which computes the same function.

        Raises:
            ValueError: a tensor is missing or has another shape; then nothing is changed.
        """
        move_tensors(model, self.act)
        return model

    def act(self, held: HeldTensors) -> None:
        """As :meth:`apply`, on the tensors of a model as this process holds them."""
        for part in self.parts:
            if isinstance(part, GroupElement):
                part.moved(held)
        for part in self.parts:
            part.act(held)

    def inverse(self) -> GroupChange:
        """The inverse: exact for permutations and signs, up to rounding for factors and matrices."""
        return GroupChange([part.inverse() for part in reversed(self.parts)])

    def compose(self, other: GroupChange) -> GroupChange:
        """This one after ``other``, which is of the same network."""
        return GroupChange([*other.parts, *self.parts])

    def carriers(self, model: nn.Module) -> dict[nn.Parameter, Carrier]:
        """How the state of an optimizer follows the move of each parameter, for :func:`teleport.transport_state`.

        Args:
            model: that the change was applied to, whose parameters the optimizer has.
        """
        shards_again(model)  # else those of the root may be whole, which the optimizer does not know
        parts = [BasisChange(each.quiver, each.tau) if isinstance(each, Folding) else each for each in self.parts]
        factored = [
            set() if isinstance(each, GroupElement) else set(multiplications_of(each.quiver).moved(each.tau))
            for each in parts
        ]
        found: dict[nn.Parameter, Carrier] = {}
        for name, parameter in model.named_parameters():
            own = [
                part
                for part, names in zip(parts, factored, strict=True)
                if name in names or (isinstance(part, GroupElement) and (part.moves(name) or name in part.ones))
            ]
            if own:
                found[parameter] = ChangeCarrier(name, own)
        return found


@dataclass(frozen=True)
class ChangeCarrier:
    """A move of one parameter by factors, permutations and matrices, as it acts on an optimizer's state.

    Attributes:
        name: of the parameter.
        parts: what acts on it, in this order.
    """

    name: str
    parts: Sequence[BasisChange | GroupElement]

    def hindrance(self, entry: Entry) -> str:
        """Why an entry of this rule cannot follow, a clause that names the parameter; empty if it can."""
        elements = [each for each in self.parts if isinstance(each, GroupElement)]
        if any(self.name in each.ones and each.actions for each in elements):
            return (
                f"{self.name!r} was folded into the weights beside it, and its gradient is no image of the earlier one"
            )
        if entry not in (-1, 1) and any(action.mixes for each in elements for action in each.moves(self.name)):
            return f"it belongs to single elements of {self.name!r}, which a matrix mixes"
        return ""

    def carried(self, value: Tensor, entry: Entry) -> Tensor:
        """An entry of the state after the move, as of ``Carrier``; one that is sharded is gathered for it."""
        if is_sharded(value):
            carried: Tensor = as_shards(self.carried(value.full_tensor(), entry), value)  # type: ignore[attr-defined]
            return carried
        for part in self.parts:
            if isinstance(part, BasisChange):
                factors = part.quiver.scaled[self.name].factors(part.tau).to(value.device)
                value = through_factors(value, entry, factors)
            elif any(action.mixes for action in part.moves(self.name)):
                value = (part if entry == 1 else part.cotangent()).acted(self.name, value)
            else:
                factors = part.acted(self.name, torch.ones_like(value))
                value = through_factors(part.order().acted(self.name, value), entry, factors)
        return value
