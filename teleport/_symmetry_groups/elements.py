"""Elements of a network's symmetry group: drawn, applied in one pass over each parameter, inverted, composed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from teleport._engine.held_tensors import HeldTensors, move_tensors
from teleport._symmetry_groups.axis import factors_in
from teleport._symmetry_groups.axis_action import AxisAction
from teleport._symmetry_groups.axis_state import Axes
from teleport._symmetry_groups.families import Block, blocks_of
from teleport._symmetry_groups.gathers import Gathers


@dataclass(frozen=True)
class GroupElement:
    """An element of a network's group of permutations, rotations and matrices.

    Attributes:
        axes: of each parameter and buffer that something acts on, by name.
        actions: in the order in which they act.
        ones: weights that must be folded before, so that they are one.
    """

    axes: Mapping[str, Axes]
    actions: Sequence[AxisAction]
    ones: tuple[str, ...] = ()

    def inverse(self) -> GroupElement:
        """The inverse element, exact for permutations and signs, up to rounding for matrices."""
        return GroupElement(self.axes, [each.inverted() for each in reversed(self.actions)], self.ones)

    def compose(self, other: GroupElement) -> GroupElement:
        """This one after ``other``.

        Raises:
            ValueError: ``other`` is of another network.
        """
        if self.axes != other.axes:
            raise ValueError("only elements of one network's group compose")
        return GroupElement(self.axes, [*other.actions, *self.actions], self.ones)

    def cotangent(self) -> GroupElement:
        """The element that acts on gradients as this one does on parameters."""
        return GroupElement(self.axes, [each.cotangent() for each in self.actions], self.ones)

    def order(self) -> GroupElement:
        """The permutations of this element, without signs and matrices."""
        actions = [AxisAction(each.variable, each.companions, each.order) for each in self.actions]
        return GroupElement(self.axes, [each for each in actions if each.order is not None], self.ones)

    def moves(self, name: str) -> list[AxisAction]:
        """What acts on the tensor of a name."""
        variables = {factor.variable for factor in factors_in(self.axes.get(name, ()))}
        return [each for each in self.actions if each.variable in variables]

    @torch.no_grad()
    def acted(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor after the action that the element has on the one of this name, which has the same shape."""
        values = tensor.detach().clone()
        for block in blocks_of(self.axes.get(name, ())):
            self._apply(values, block, Gathers())
        return values

    def moved(self, held: HeldTensors) -> list[str]:
        """The names of the parameters and buffers of a model that the element moves.

        Raises:
            ValueError: one is missing or has another shape.
        """
        acting = {each.variable for each in self.actions}
        found = []
        for name, axes in self.axes.items():
            if not acting & {factor.variable for axis in axes for segment in axis for factor in segment}:
                continue
            shape = [sum(math.prod(factor.size for factor in segment) for segment in axis) for axis in axes]
            if held.shape(name) != shape:
                raise ValueError(f"the element is of another model: this one has no tensor {name!r} of shape {shape}")
            found.append(name)
        return found

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """The parameters and buffers of a model that the element moves, by name.

        Raises:
            ValueError: one is missing or has another shape.
        """
        held = HeldTensors.of(model)
        return {name: held.own[name] for name in self.moved(held)}

    def apply(self, model: nn.Module) -> nn.Module:
        """Change the model's parameters, and the statistics of its batch norms, in place.

        Args:
            model: the traced model, or one of the same structure. Of one that is sharded over processes, all of these
                call this, and a parameter whose rows are mixed is gathered, one at a time.

        Returns:
            ``model``, which computes the same function.

        Raises:
            ValueError: a tensor is missing or has another shape, or a weight is not folded; then nothing is changed.
        """
        move_tensors(model, self.act)
        return model

    @torch.no_grad()
    def act(self, held: HeldTensors) -> None:
        """As :meth:`apply`, on the tensors of a model as this process holds them."""
        moving = self.moved(held)
        if unfolded := [name for name in self.ones if self.actions and not bool((held.value(name) == 1).all())]:
            raise ValueError(
                f"{unfolded[0]!r} is not one, and the element holds after it was folded: apply folding() of the "
                "symmetries before"
            )
        gathers = Gathers()
        companions = {each.variable: each.companions for each in self.actions}
        for name in moving:
            blocks, rows = list(blocks_of(self.axes[name])), held.rows(name)
            if rows is not None and not any(block.moves_rows(companions) for block in blocks):
                parts = [block.in_rows(rows.first, rows.end) for block in blocks]
                self._apply_all(held.own[name], [part for part in parts if part is not None], gathers)
            else:
                held.rewrite(name, partial(self._apply_all, blocks=blocks, gathers=gathers))

    def _apply_all(self, tensor: Tensor, blocks: Sequence[Block], gathers: Gathers) -> None:
        for block in blocks:
            self._apply(tensor, block, gathers)

    def _apply(self, tensor: Tensor, block: Block, gathers: Gathers) -> None:
        actions = [each for each in self.actions if each.variable in block.variables]
        if not actions:
            return
        part = tensor
        for axis, (start, length) in enumerate(block.spans):
            part = part.narrow(axis, start, length)
        if gathers.apply(part, block, actions):
            return
        values = part.reshape(block.sizes)
        if any(each.matrix is not None for each in actions):
            values = values.double()
        for each in actions:
            values = each.on(values, block)
        part.copy_(values.reshape(part.shape))


def random_order(copies: int, units: int, generator: torch.Generator) -> Tensor:
    """Uniform permutations ``[copies, units]``."""
    return torch.rand(copies, units, dtype=torch.float64, generator=generator).argsort(1)


def random_signs(copies: int, units: int, generator: torch.Generator) -> Tensor:
    """Uniform signs ``[copies, units]``."""
    return torch.where(torch.rand(copies, units, dtype=torch.float64, generator=generator) < 0.5, -1.0, 1.0)


def random_rotation(copies: int, units: int, generator: torch.Generator) -> Tensor:
    """Orthogonal matrices ``[copies, units, units]`` of Haar measure, float64 (Mezzadri 2007)."""
    drawn = torch.randn(copies, units, units, dtype=torch.float64, generator=generator)
    rotation, upper = torch.linalg.qr(drawn)
    turned: Tensor = rotation * upper.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]
    return turned


def centered_rotation(copies: int, units: int, generator: torch.Generator) -> Tensor:
    """Orthogonal matrices ``[copies, units, units]`` that keep the vector of ones, of Haar measure among these."""
    mirror = torch.eye(units, dtype=torch.float64)
    toward = torch.full((units,), units**-0.5, dtype=torch.float64)
    toward[0] -= 1  # a reflection that takes the first unit vector to that of ones
    if units > 1:
        mirror -= 2 * toward[:, None] * toward / toward.square().sum()
    inner = torch.zeros(copies, units, units, dtype=torch.float64)
    inner[:, 0, 0] = 1
    inner[:, 1:, 1:] = random_rotation(copies, units - 1, generator)
    return mirror @ inner @ mirror


def random_turn(copies: int, generator: torch.Generator) -> Tensor:
    """Rotations of a plane ``[copies, 2, 2]``, uniform."""
    angle = 2 * math.pi * torch.rand(copies, dtype=torch.float64, generator=generator)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
