"""The symmetries of a network: its vertices, the group of each, where it acts and what reduces it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from teleport._engine.held_tensors import HeldTensors
from teleport._errors import UnsupportedModel
from teleport._quiver.quiver import Quiver
from teleport._symmetry_groups.axis import Level
from teleport._symmetry_groups.axis_action import AxisAction
from teleport._symmetry_groups.axis_state import Axes
from teleport._symmetry_groups.elements import (
    GroupElement,
    centered_rotation,
    random_order,
    random_rotation,
    random_signs,
    random_turn,
)
from teleport._symmetry_groups.folding import Folding, folding_of
from teleport._tracing.value_reads import ValueRead

GROUPS = {
    Level.TURN: "plane rotation",
    Level.SCALED_TURN: "scaled plane rotation",
    Level.PERMUTATION: "permutation",
    Level.SIGNED: "signed permutation",
    Level.CENTERED: "mean-keeping orthogonal",
    Level.ORTHOGONAL: "orthogonal",
    Level.GENERAL: "general linear",
}


_FACTORED = ("scaled plane rotation", "general linear")


@dataclass(frozen=True)
class SymmetryVertex:
    """The units of one vertex, on which one group acts.

    Attributes:
        name: the first parameter that makes the units, with its axis.
        group: ``"permutation"``, ``"signed permutation"``, ``"mean-keeping orthogonal"``, ``"orthogonal"`` or
            ``"general linear"``; of pairs that a rotary embedding turns ``"scaled plane rotation"`` or ``"plane
            rotation"``.
        units: how many units the group acts on.
        copies: how many elements act independently: one per head, or per group of a convolution.
        scalings: the number of independent factors on the units, of the quiver.
        dimension: of the group, scalings included.
        acts_on: parameter -> its axis and side, ``"axis 0 (output)"``.
        reasons: what reduces the group, in the order of the evaluation; empty for a general linear group.
    """

    name: str
    group: str
    units: int
    copies: int
    scalings: int
    dimension: int
    acts_on: Mapping[str, str]
    reasons: Sequence[str]

    def __str__(self) -> str:
        each = f"{self.copies} x " if self.copies > 1 else ""
        scaled = f", {self.scalings} scalings" if self.scalings and self.group not in _FACTORED else ""
        why = f"; {self.reasons[-1]}" if self.reasons else ""
        return f"{self.name}: {each}{self.group} of {self.units} units{scaled}, dimension {self.dimension}{why}"


@dataclass(eq=False)
class Symmetries:
    """The symmetries that were found on a model: an element of these groups changes weights and not the function.

    Attributes:
        vertices: those on which a group acts.
        pinned: name of a parameter that stays -> why; ``"but for factors"`` if the quiver scales it.
        quiver: the scalings.
        axes: of each parameter and buffer, by name.
        levels: of each variable in the axes.
        companions: of each variable, those per unit of which it has another element.
        free_scalings: the number of independent factors of the quiver that no general linear group holds.
        folded: the weights that must be folded into others, before an element acts.
    """

    vertices: list[SymmetryVertex]
    pinned: dict[str, str]
    quiver: Quiver = field(repr=False)
    axes: Mapping[str, Axes] = field(repr=False)
    levels: Mapping[int, Level] = field(repr=False)
    companions: Mapping[int, tuple[int, ...]] = field(repr=False)
    free_scalings: int
    folded: tuple[str, ...] = ()

    @property
    def value_reads(self) -> list[ValueRead]:
        """Where the model's code reads values, on which its branches may depend."""
        return self.quiver.value_reads

    @property
    def dimension(self) -> int:
        """Of the whole group. The orbit has this dimension where no element but the identity keeps the weights."""
        return self.free_scalings + sum(matrix_dimension(each) for each in self.vertices)

    @property
    def log10_permutations(self) -> float:
        """The decimal logarithm of the number of permutations, signs not counted."""
        orders = [each for each in self.vertices if each.group in ("permutation", "signed permutation")]
        return sum(each.copies * math.lgamma(each.units + 1) for each in orders) / math.log(10)

    def __str__(self) -> str:
        head = (
            f"symmetries: {len(self.vertices)} vertices, dimension {self.dimension} "
            f"({self.free_scalings} scalings beside matrices), 10^{self.log10_permutations:.0f} permutations"
        )
        lines = [head, *(f"  {each}" for each in self.vertices)]
        lines += [f"  {each}" for each in self.value_reads]
        if self.folded:
            lines.append(f"  to be folded into the linear maps beside them: {', '.join(self.folded)}")
        return "\n".join([*lines, *(f"  {name} stays: {reason}" for name, reason in self.pinned.items())])

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "dimension": self.dimension,
            "free_scalings": self.free_scalings,
            "log10_permutations": self.log10_permutations,
            "vertices": [{**asdict(each), "acts_on": dict(each.acts_on)} for each in self.vertices],
            "pinned": dict(self.pinned),
            "folded": list(self.folded),
            "value_reads": [asdict(each) for each in self.value_reads],
        }

    def folding(self) -> Folding:
        """Sets the weights ``folded`` to one and multiplies the linear maps beside them; of the model as it is now.

        Raises:
            UnsupportedModel: the model is sharded over processes; ``change`` of the report holds what was folded.
        """
        parameters = {name: self.quiver.scaled[name].parameter for name in self.folded}
        if sharded := [name for name, each in parameters.items() if each.is_meta]:
            raise UnsupportedModel(
                f"'{sharded[0]}' is sharded over processes, and its values are not held: the change of the report has "
                "the folding as its first part"
            )
        return folding_of(self.quiver, HeldTensors(parameters), self.folded)

    def sample(self, group: str, generator: torch.Generator, stretch: Sequence[float] = (0.5, 2.0)) -> GroupElement:
        """A random element.

        Args:
            group: ``"permutation"`` (with signs where an odd function allows them), ``"orthogonal"``, ``"general"``
                (rotations where no more is allowed), or ``"all"``: the largest group of each vertex.
            generator: on the CPU.
            stretch: the least and the largest singular value of a general matrix.
        """
        sizes = {f.variable: f.size for axes in self.axes.values() for axis in axes for seg in axis for f in seg}
        actions = []
        for variable in self._ordered([each for each in self.levels if each in sizes]):
            copies = math.prod(sizes[each] for each in self.companions[variable])
            action = self._draw(variable, copies, sizes[variable], group, generator, stretch)
            actions += [] if action is None else [action]
        return GroupElement(self.axes, actions, self.folded)

    def _ordered(self, variables: Sequence[int]) -> list[int]:
        """Those that have another element per unit come before what moves these units."""
        ordered: list[int] = []

        def add(variable: int) -> None:
            if variable in ordered:
                return
            for other in variables:
                if variable in self.companions[other]:
                    add(other)
            ordered.append(variable)

        for variable in variables:
            add(variable)
        return ordered

    def _draw(
        self, variable: int, copies: int, units: int, group: str, generator: torch.Generator, stretch: Sequence[float]
    ) -> AxisAction | None:
        level, companions = self.levels[variable], self.companions[variable]
        if level.matrices and group in ("orthogonal", "general", "all"):
            matrix, inverse = _matrix(level, copies, units, group, generator, stretch)
            return AxisAction(variable, companions, matrix=matrix, inverse=inverse)
        if level.permutes and group in ("permutation", "all"):
            order = random_order(copies, units, generator)
            signs = random_signs(copies, units, generator) if level.signs else None
            return AxisAction(variable, companions, order=order, signs=signs)
        return None


def _matrix(
    level: Level, copies: int, units: int, group: str, generator: torch.Generator, stretch: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """A random matrix of a level, a rotation for ``group="orthogonal"``, and its inverse."""
    if level in (Level.TURN, Level.SCALED_TURN):
        rotation = random_turn(copies, generator)
    elif level == Level.CENTERED:
        rotation = centered_rotation(copies, units, generator)
    else:
        rotation = random_rotation(copies, units, generator)
    if group == "orthogonal" or level not in (Level.SCALED_TURN, Level.GENERAL):
        return rotation, rotation.mT
    low, high = math.log(stretch[0]), math.log(stretch[1])
    sizes = (copies, 1, 1 if level == Level.SCALED_TURN else units)
    other = rotation.mT if level == Level.SCALED_TURN else random_rotation(copies, units, generator)
    scales: Tensor = (low + (high - low) * torch.rand(sizes, dtype=torch.float64, generator=generator)).exp()
    if level == Level.SCALED_TURN:
        return rotation * scales, other / scales
    return (rotation * scales) @ other, other.mT @ (rotation / scales).mT


def matrix_dimension(vertex: SymmetryVertex) -> int:
    """The dimension of the matrices of a vertex."""
    units = vertex.units
    each = {
        "plane rotation": 1,
        "scaled plane rotation": 2,
        "mean-keeping orthogonal": (units - 1) * (units - 2) // 2,
        "orthogonal": units * (units - 1) // 2,
        "general linear": units**2,
    }
    return vertex.copies * each.get(vertex.group, 0)
