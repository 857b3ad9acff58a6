"""The groups that may act on a network, and a network that they have moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from teleport._change_of_basis.basis_change import BasisChange
from teleport._matching.assignment import Kind
from teleport._matching.scales import Scales
from teleport._symmetry_groups.axis import Level
from teleport._symmetry_groups.axis_action import AxisAction
from teleport._symmetry_groups.axis_state import Axes
from teleport._symmetry_groups.elements import GroupElement
from teleport._symmetry_groups.find_symmetries import classes_of_units
from teleport._symmetry_groups.parts import act_on
from teleport._symmetry_groups.symmetries import Symmetries

Tensors = dict[str, Tensor]
Part = BasisChange | GroupElement


@dataclass
class Groups:
    """What acts on a network at the group that the caller has chosen.

    Attributes:
        symmetries: that were found.
        kinds: the compact group that is sought on each variable.
        matrices: variables on which invertible matrices are sought.
        turns: variables on which a factor besides the rotation of a plane is sought.
        scales: factors of channels, or ``None``.
    """

    symmetries: Symmetries
    kinds: Mapping[int, Kind]
    matrices: Sequence[int]
    turns: Sequence[int]
    scales: Scales | None

    @classmethod
    def of(cls, symmetries: Symmetries, group: str, names: Sequence[str]) -> Groups:
        """The groups of a model.

        Args:
            symmetries: of the model.
            group: as of ``teleport.ChangeOfBasis``.
            names: of the parameters.
        """
        used = {
            factor.variable
            for name in names
            for axis in symmetries.axes.get(name, ())
            for segment in axis
            for factor in segment
        }
        kinds: dict[int, Kind] = {}
        for variable, level in symmetries.levels.items():
            if variable not in used:
                continue
            if level in (Level.TURN, Level.SCALED_TURN):
                if group in ("orthogonal", "general", "all"):
                    kinds[variable] = Kind.TURN
            elif level >= Level.ORTHOGONAL and group in ("orthogonal", "general", "all"):
                kinds[variable] = Kind.ROTATION
            elif level.permutes and group in ("permutation", "all"):
                kinds[variable] = Kind.SIGNED if level.signs else Kind.PERMUTATION
        large = group in ("general", "all")
        matrices = [each for each in kinds if large and symmetries.levels[each] == Level.GENERAL]
        turns = [each for each in kinds if large and symmetries.levels[each] == Level.SCALED_TURN]
        held = {one for each in matrices for one in classes_of_units(symmetries.axes, symmetries.quiver, each)}
        scales = Scales(symmetries.quiver, held) if group in ("scaling", "all") else None
        return cls(symmetries, kinds, matrices, turns, scales if scales is not None and scales.free else None)

    @property
    def axes(self) -> Mapping[str, Axes]:
        """Of all parameters and buffers."""
        return self.symmetries.axes

    @property
    def compact(self) -> bool:
        """Whether no factor or matrix is sought, which could be of any length."""
        return self.scales is None and not self.matrices and not self.turns


@dataclass
class Moved:
    """The second network as it is now.

    Attributes:
        tensors: parameters and the statistics that move along, float64, by name.
        parts: what moved them, in order.
    """

    tensors: Tensors
    parts: list[Part] = field(default_factory=list)

    def copy(self) -> Moved:
        """Another one that moves on its own."""
        return Moved({name: each.clone() for name, each in self.tensors.items()}, list(self.parts))

    def act(self, groups: Groups, actions: Sequence[AxisAction]) -> None:
        """Let actions act."""
        if actions:
            act_on(groups.axes, actions, self.tensors)
            self.parts.append(GroupElement(groups.axes, list(actions)))

    def multiply(self, groups: Groups, tau: Tensor) -> None:
        """Multiply by the factors of each class."""
        quiver = groups.symmetries.quiver
        for name, scaled in quiver.scaled.items():
            self.tensors[name].mul_(scaled.factors(tau.to(self.tensors[name].device)))
        last = self.parts[-1] if self.parts else None
        if isinstance(last, BasisChange):
            self.parts[-1] = BasisChange(quiver, last.tau * tau)
        else:
            self.parts.append(BasisChange(quiver, tau))
