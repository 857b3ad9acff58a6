"""Which parameters scale with which units, and the quiver that follows."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from teleport._quiver.quiver import Quiver, Scaled, Site
from teleport._quiver.scale_indices import compact, compacts, constant
from teleport._quiver.scale_variables import Classes, ScaleVariables

UNSEEN = -1
"""In place of the unit of an element that no use of the parameter has shown."""


@dataclass(frozen=True)
class Weight:
    """A parameter that a call uses as a weight.

    Attributes:
        name: of the parameter.
        shape: of the argument.
        index: ``[*shape]``, the number of each of its elements in the parameter; ``None`` where it is all in order.
    """

    name: str
    shape: torch.Size
    index: Tensor | None

    def unflatten(self, groups: int) -> Weight:
        """With the first axis split in ``groups``."""
        shape = torch.Size([groups, self.shape[0] // groups, *self.shape[1:]])
        index = torch.arange(math.prod(shape)) if self.index is None else self.index
        return Weight(self.name, shape, index.reshape(shape))


@dataclass
class _Use:
    """What all uses of a parameter as a weight showed: units in shapes that broadcast to the parameter's."""

    output_class: Tensor
    input_class: Tensor


class ParameterScales:
    """Collects how the parameters are used.

    A parameter used as a layer's weight scales with what it makes and, inversely, with what it reads. One that is added
    or moved about scales element by element, with units of its own; these also tell where a view of it is a weight.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], units: ScaleVariables) -> None:
        self.parameters = parameters
        self.units = units
        self.fixed: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self._made: dict[str, list[Tensor]] = {}
        self._uses: dict[str, _Use] = {}
        self._elements: dict[str, Tensor] = {}
        self._starts: list[int] = []  # the first unit of each of these, ascending

    def fix(self, name: str, reason: str) -> None:
        """Let a parameter stay as it is."""
        self.fixed.setdefault(name, reason)

    def elements(self, name: str) -> Tensor:
        """The units of a parameter's elements, in its shape."""
        if name not in self._elements:
            self._starts.append(self.units.count)
            self._elements[name] = self.units.fresh(self.parameters[name].shape)
        return self._elements[name]

    def weight_with(self, label: Tensor) -> Weight | None:
        """The parameter whose elements have these units, each once; ``None`` where there is no one."""
        position = bisect_right(self._starts, int(compact(label).min())) - 1
        if position < 0:
            return None
        name, start = list(self._elements)[position], self._starts[position]
        size = self._elements[name].numel()
        if label.numel() > size or int(compact(label).max()) >= start + size:
            return None
        index = label - start
        return Weight(name, label.shape, index) if len(torch.unique(index)) == index.numel() else None

    def produce(self, kind: str, weight: Weight, made: set[int], read: Tensor) -> Tensor:
        """Units that a weight makes along its axes ``made``, and reads; see ``Labelling.produce``."""
        shape = [length if axis in made else 1 for axis, length in enumerate(weight.shape)]
        units = self._known(weight, made)
        if units is None:
            units = self.units.fresh(shape)
            self._made.setdefault(weight.name, []).append(units)
            self.kinds.setdefault(weight.name, kind)
        self._scale(weight, units, read)
        return units

    def _known(self, weight: Weight, made: set[int]) -> Tensor | None:
        """The units that an earlier use of the weight made along the same axes."""
        use = self._uses.get(weight.name)
        if use is None:
            return None
        parameter = self.parameters[weight.name]
        units = use.output_class.expand(parameter.shape)
        if weight.index is not None:
            units = units.reshape(-1)[weight.index]
        units = units[tuple(slice(None) if axis in made else slice(0, 1) for axis in range(units.dim()))]
        return None if bool((units == UNSEEN).any()) else units

    def _scale(self, weight: Weight, output_class: Tensor, input_class: Tensor) -> None:
        """Note one use; what several uses of an element say must agree."""
        name, parameter = weight.name, self.parameters[weight.name]
        if weight.index is not None:
            index = weight.index.flatten()
            output_class, input_class = (
                torch.full((parameter.numel(),), UNSEEN).index_copy(0, index, side.expand(weight.shape).flatten())
                for side in (output_class, input_class)
            )
            output_class, input_class = output_class.reshape(parameter.shape), input_class.reshape(parameter.shape)
        held = self._uses.get(name)
        if held is not None:
            reason = f"{name} is used in different ways"
            output_class = self._agreed(held.output_class, output_class, reason)
            input_class = self._agreed(held.input_class, input_class, reason)
        self._uses[name] = _Use(output_class, input_class)

    def _agreed(self, side: Tensor, other: Tensor, reason: str) -> Tensor:
        """One side of two uses together; joined where both were seen."""
        if side.shape == other.shape and torch.equal(side, other):
            return side
        side, other = torch.broadcast_tensors(side, other)  # type: ignore[no-untyped-call]
        both = (side != UNSEEN) & (other != UNSEEN)
        self.units.join(side[both], other[both], reason)
        return torch.where(side == UNSEEN, other, side)

    def solve(self, sites: Sequence[Site]) -> Quiver:
        """The quiver, after all uses."""
        self._settle_elements(sites)
        for name, reason in self.fixed.items():
            use = self._uses.get(name)
            for side in () if use is None else (use.output_class, use.input_class):
                self.units.pin(side, f"{name} stays: {reason}")
        classes = self.units.classes()
        scaled = {}
        for name in (name for name in self.parameters if name in self._uses):
            parameter = self.parameters[name]
            sides = (_short(classes.of[side]).to(parameter.device) for side in _sides(self._uses[name]))
            scaled[name] = Scaled(parameter, *sides)
        scaled = {name: each for name, each in scaled.items() if _moves(each)}
        made = {name: torch.cat([units.flatten() for units in self._made[name]]) for name in self._made}
        for site in sites:
            site.classes = _short(classes.of[site.classes])
        return Quiver(
            freedom=classes.freedom,
            inverse=classes.inverse,
            scaled=scaled,
            units={name: classes.of[units] for name, units in made.items()},
            kinds=self.kinds,
            sites=[site for site in sites if bool(site.classes.any())],
            reasons=self._reasons(classes, made, scaled),
        )

    def _settle_elements(self, sites: Sequence[Site]) -> None:
        """What elements scale with, where they were used one by one; those that were not used at all stay."""
        constrained = self.units.constrained()
        for side in [side for use in self._uses.values() for side in _sides(use)] + [site.classes for site in sites]:
            constrained[compact(side).clamp(min=0)] = True
        for name, elements in self._elements.items():
            use = self._uses.pop(name, None)
            output_class = torch.where(constrained[elements], elements, 0)
            input_class = constant(elements.shape)
            if use is not None:
                reason = f"{name} is used in different ways"
                seen = use.output_class.expand(elements.shape) != UNSEEN
                as_both = seen & constrained[elements]
                self.units.join(elements[as_both], use.output_class.expand(elements.shape)[as_both], reason)
                self.units.pin(use.input_class.expand(elements.shape)[as_both], reason)
                output_class = torch.where(seen, use.output_class, output_class)
                input_class = torch.where(seen, use.input_class, 0)
            self._uses[name] = _Use(output_class, input_class)

    def _reasons(self, classes: Classes, made: Mapping[str, Tensor], scaled: Mapping[str, Scaled]) -> dict[str, str]:
        """Why channels carry 1 (first of all) or positive factors only, and why other parameters stay."""
        reasons = {}
        for name, units in made.items():
            noted = classes.reason[units]
            noted = noted[noted >= 0]
            if len(noted):
                pinned = classes.of[units] == 0
                first = classes.reason[units][pinned][0] if bool(pinned.any()) else noted[0]
                reasons[name] = classes.reasons[int(first)]
        for name in self.parameters:
            if name in self.fixed and name not in reasons and name not in scaled:
                reasons[name] = self.fixed[name]
        return reasons


def _sides(use: _Use) -> tuple[Tensor, Tensor]:
    return use.output_class, use.input_class


def _moves(scaled: Scaled) -> bool:
    """Whether any factor can differ from 1."""
    output_class, input_class = compacts(scaled.output_class, scaled.input_class)
    return bool((output_class != input_class).any())


def _short(classes: Tensor) -> Tensor:
    """With one element along each axis that the classes do not vary along."""
    for axis in range(classes.dim()):
        first = classes.narrow(axis, 0, 1)
        if classes.shape[axis] > 1 and bool((classes == first).all()):
            classes = first
    return classes.contiguous()
