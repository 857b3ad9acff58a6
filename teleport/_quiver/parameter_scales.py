"""Which parameters scale with which scale variables."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from teleport._quiver.scale_indices import compact
from teleport._quiver.scale_variables import ScaleVariables

UNSEEN = -1
"""In place of the scale variable of an element that no use of the parameter has shown."""


@dataclass(frozen=True)
class Weight:
    """A parameter that a call uses as a weight.

    Attributes:
        name: of the parameter.
        shape: of the argument.
        index: ``[*shape]``, the position of each element in the parameter; ``None`` if it is the whole parameter in
            order.
    """

    name: str
    shape: torch.Size
    index: Tensor | None

    def unflatten(self, groups: int) -> Weight:
        """With the first axis split in ``groups``."""
        shape = torch.Size([groups, self.shape[0] // groups, *self.shape[1:]])
        index = torch.arange(math.prod(shape)) if self.index is None else self.index
        return Weight(self.name, shape, index.reshape(shape))


@dataclass(frozen=True)
class ParameterUse:
    """The scale variables of all uses of a parameter as a weight, in shapes that broadcast to the parameter's."""

    output_class: Tensor
    input_class: Tensor


class ParameterScales:
    """Collects how the parameters are used.

    A parameter used as the weight of a layer scales with its output channels and inversely with its input channels. A
    parameter that is added or rearranged scales element by element, with scale variables of its own; these also
    identify a view of it that is used as a weight.

    The solver reads ``pinned``, ``kinds``, ``made``, ``uses`` and ``element_variables``, all by parameter name.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], variables: ScaleVariables) -> None:
        self.parameters = parameters
        self.variables = variables
        self.pinned: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self.made: dict[str, list[Tensor]] = {}
        self.uses: dict[str, ParameterUse] = {}
        self.element_variables: dict[str, Tensor] = {}
        self._starts: list[int] = []  # the first scale variable of each, ascending

    def pin(self, name: str, reason: str) -> None:
        """Pin a parameter."""
        self.pinned.setdefault(name, reason)

    def elements(self, name: str) -> Tensor:
        """The scale variables of a parameter's elements, in its shape."""
        if name not in self.element_variables:
            self._starts.append(self.variables.count)
            self.element_variables[name] = self.variables.fresh(self.parameters[name].shape)
        return self.element_variables[name]

    def weight_with(self, scale_index: Tensor) -> Weight | None:
        """The parameter whose elements have these scale variables, each once; ``None`` if there is none."""
        position = bisect_right(self._starts, int(compact(scale_index).min())) - 1
        if position < 0:
            return None
        name, start = list(self.element_variables)[position], self._starts[position]
        size = self.element_variables[name].numel()
        if scale_index.numel() > size or int(compact(scale_index).max()) >= start + size:
            return None
        index = scale_index - start
        return Weight(name, scale_index.shape, index) if len(torch.unique(index)) == index.numel() else None

    def produce(self, kind: str, weight: Weight, made: set[int], read: Tensor) -> Tensor:
        """Scale variables of a weight's outputs along its axes ``made``; see ``ScaleState.produce``."""
        shape = [length if axis in made else 1 for axis, length in enumerate(weight.shape)]
        variables = self._known(weight, made)
        if variables is None:
            variables = self.variables.fresh(shape)
            self.made.setdefault(weight.name, []).append(variables)
            self.kinds.setdefault(weight.name, kind)
        self._scale(weight, variables, read)
        return variables

    def _known(self, weight: Weight, made: set[int]) -> Tensor | None:
        """The scale variables of the same axes from an earlier use of the weight."""
        use = self.uses.get(weight.name)
        if use is None:
            return None
        parameter = self.parameters[weight.name]
        variables = use.output_class.expand(parameter.shape)
        if weight.index is not None:
            variables = variables.reshape(-1)[weight.index]
        variables = variables[tuple(slice(None) if axis in made else slice(0, 1) for axis in range(variables.dim()))]
        return None if bool((variables == UNSEEN).any()) else variables

    def _scale(self, weight: Weight, output_class: Tensor, input_class: Tensor) -> None:
        """Add one use; several uses of an element must agree."""
        name, parameter = weight.name, self.parameters[weight.name]
        if weight.index is not None:
            index = weight.index.flatten()
            output_class, input_class = (
                torch.full((parameter.numel(),), UNSEEN).index_copy(0, index, side.expand(weight.shape).flatten())
                for side in (output_class, input_class)
            )
            output_class, input_class = output_class.reshape(parameter.shape), input_class.reshape(parameter.shape)
        held = self.uses.get(name)
        if held is not None:
            reason = f"{name} is used in different ways"
            output_class = self._agreed(held.output_class, output_class, reason)
            input_class = self._agreed(held.input_class, input_class, reason)
        self.uses[name] = ParameterUse(output_class, input_class)

    def _agreed(self, side: Tensor, other: Tensor, reason: str) -> Tensor:
        """One side of two uses combined; set equal if both are known."""
        if side.shape == other.shape and torch.equal(side, other):
            return side
        side, other = torch.broadcast_tensors(side, other)  # type: ignore[no-untyped-call]
        both = (side != UNSEEN) & (other != UNSEEN)
        self.variables.join(side[both], other[both], reason)
        return torch.where(side == UNSEEN, other, side)
