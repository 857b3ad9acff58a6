"""The search for the element that brings one network nearest to another, from several starts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from teleport._change_of_basis.basis_change import BasisChange
from teleport._matching import general
from teleport._matching.assignment import Kind
from teleport._matching.compact import GAIN, Descent
from teleport._matching.pairs import Pair, pairs_of
from teleport._matching.scales import Scales
from teleport._symmetry_groups.axis import Level
from teleport._symmetry_groups.axis_state import Axes
from teleport._symmetry_groups.elements import AxisAction, GroupElement
from teleport._symmetry_groups.find_symmetries import classes_of_units
from teleport._symmetry_groups.parts import act_on
from teleport._symmetry_groups.symmetries import Symmetries

ROUNDS = 50
"""Of factors, matrices and assignments that take turns at the end."""

ENOUGH = 1e-9
"""A round that shortens the squared distance by less than this share is the last."""

ROUNDING = 1e-15
"""A distance that is smaller, relative to the norm of the parameters, is 0."""

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


class Search:
    """Brings the second of two networks near to the first.

    Args:
        groups: what may act.
        first: parameters of the network that stays, float64, by name.
        second: parameters and moving statistics of the other.
        generator: of the order of updates and of random starts.
        sweeps: the most rounds of a coordinate descent.
    """

    def __init__(
        self, groups: Groups, first: Tensors, second: Tensors, generator: torch.Generator, sweeps: int
    ) -> None:
        self.groups, self.first, self.start = groups, first, Moved(second)
        self.generator, self.sweeps = generator, sweeps
        self.norm = math.sqrt(sum(float(each.square().sum()) for each in first.values()))

    def squared_distance(self, moved: Moved) -> float:
        """Between the two networks' parameters."""
        return sum(float((each - moved.tensors[name]).square().sum()) for name, each in self.first.items())

    def nearest(self, starts: Sequence[Sequence[AxisAction]]) -> Moved:
        """The nearest of what is reached from several starts.

        Args:
            starts: elements that act before the search, besides the identity.
        """
        best, reached = self.start, self.squared_distance(self.start)
        for candidate in self._candidates(starts):
            self.refine(candidate)
            distance = self.squared_distance(candidate)
            if distance < reached:
                best, reached = candidate, distance
            if self._zero(reached):
                break
        return best

    def _zero(self, squared: float) -> bool:
        """Whether a squared distance is 0 up to rounding."""
        return math.sqrt(squared) <= ROUNDING * self.norm

    def nearest_by(self, pairs: Sequence[Pair], starts: Sequence[Sequence[AxisAction]]) -> Moved:
        """Where the inner product of these pairs is largest; what they do not hold, factors and matrices by weights.

        Args:
            pairs: of activations.
            starts: elements from which the descent starts, besides the identity and the match by weights.
        """
        seen = {each for pair in pairs for each in pair.block.variables}
        kinds = {each: kind for each, kind in self.groups.kinds.items() if each in seen}
        weights = self._descent(self.first, self.start.tensors, self.groups.kinds)
        weights.anchored()
        weights.sweeps(self.sweeps, self.generator)
        best: list[AxisAction] = []
        reached = -math.inf
        for actions in ((), weights.actions, *starts):
            held = [each for each in actions if each.variable in kinds]
            descent = Descent([pair.moved(held) for pair in pairs], kinds, self.companions)
            descent.sweeps(self.sweeps, self.generator)
            value = sum(pair.inner() for pair in descent.pairs)
            if value > reached + GAIN * abs(value):
                best, reached = [*held, *descent.actions], value
        moved = self.start.copy()
        moved.act(self.groups, best)
        others = {each: kind for each, kind in self.groups.kinds.items() if each not in seen}
        rest = self._descent(self.first, moved.tensors, others)
        rest.anchored()
        rest.sweeps(self.sweeps, self.generator)
        moved.act(self.groups, rest.actions)
        self.refine(moved, assign=False)
        return moved

    def _candidates(self, starts: Sequence[Sequence[AxisAction]]) -> Iterator[Moved]:
        yield from self._compact(self.start, self.first, starts)
        if self.groups.compact:
            return
        stays = Moved({name: each.clone() for name, each in self.first.items()})
        moves = self.start.copy()
        for each in (stays, moves):
            self.balance(each)
        for candidate in self._compact(moves, stays.tensors, starts):
            for part in reversed(stays.parts):
                self.apply(candidate, part.inverse())
            yield candidate

    def apply(self, moved: Moved, part: Part) -> None:
        """Let a part act, on factors or on axes."""
        if isinstance(part, BasisChange):
            moved.multiply(self.groups, part.tau)
        else:
            moved.act(self.groups, part.actions)

    def _compact(self, start: Moved, first: Tensors, starts: Sequence[Sequence[AxisAction]]) -> Iterator[Moved]:
        """What coordinate descent reaches from anchors, from the identity and from each start."""
        if not self.groups.kinds:
            yield start.copy()
            return
        for actions in (None, (), *starts):
            moved = start.copy()
            moved.act(self.groups, actions or ())
            descent = self._descent(first, moved.tensors, self.groups.kinds)
            if actions is None:
                descent.anchored()
            descent.sweeps(self.sweeps, self.generator)
            moved.act(self.groups, descent.actions)
            yield moved

    def _descent(self, first: Tensors, second: Tensors, kinds: Mapping[int, Kind]) -> Descent:
        """A coordinate descent on weights."""
        return Descent(self._pairs(first, second, kinds), kinds, self.companions)

    @property
    def companions(self) -> Mapping[int, tuple[int, ...]]:
        """Of each variable."""
        return self.groups.symmetries.companions

    def _pairs(self, first: Tensors, second: Tensors, acting: Mapping[int, Kind] | Sequence[int]) -> list[Pair]:
        return pairs_of(self.groups.axes, first, second, set(acting))

    def balance(self, moved: Moved) -> None:
        """Bring a network to the least norm, by factors and matrices.

        Two networks of one orbit then differ by permutations, signs and rotations alone (Kempf and Ness 1979).
        """
        groups, own = self.groups, {name: moved.tensors[name] for name in self.first}
        for variable in groups.matrices:
            sides = general.sides_of(self._pairs(own, own, [variable]), variable, self.companions[variable])
            moved.act(groups, [general.acting(variable, self.companions, general.balanced(sides))])
        for variable in groups.turns:
            sides = general.sides_of(self._pairs(own, own, [variable]), variable, self.companions[variable])
            moved.act(groups, [general.acting(variable, self.companions, sides.balanced_factor())])
        if groups.scales is not None:
            moved.multiply(groups, groups.scales.balanced(moved.tensors))

    def refine(self, moved: Moved, assign: bool = True) -> None:
        """Factors, matrices and, if said, assignments take turns as long as the distance becomes shorter."""
        groups = self.groups
        if groups.compact:
            return
        reached = self.squared_distance(moved)
        for _ in range(ROUNDS):
            before = reached
            for stage in (self._scale, self._matrices, *((self._assign,) if assign else ())):
                trial = moved.copy()
                stage(trial)
                distance = self.squared_distance(trial)
                if distance < reached:
                    moved.tensors, moved.parts, reached = trial.tensors, trial.parts, distance
            if before - reached <= ENOUGH * before or self._zero(reached):
                return

    def _scale(self, moved: Moved) -> None:
        if self.groups.scales is not None:
            moved.multiply(self.groups, self.groups.scales.nearest(self.first, moved.tensors))

    def _matrices(self, moved: Moved) -> None:
        for variable in self.groups.matrices:
            pairs = self._pairs(self.first, moved.tensors, [variable])
            matrix = general.nearer(general.sides_of(pairs, variable, self.companions[variable]))
            moved.act(self.groups, [general.acting(variable, self.companions, matrix)])
        for variable in self.groups.turns:
            pairs = self._pairs(self.first, moved.tensors, [variable])
            factor = general.sides_of(pairs, variable, self.companions[variable]).nearest_factor()
            moved.act(self.groups, [general.acting(variable, self.companions, factor)])

    def _assign(self, moved: Moved) -> None:
        fixed = {each: kind for each, kind in self.groups.kinds.items() if each not in self.groups.matrices}
        descent = self._descent(self.first, moved.tensors, fixed)
        descent.sweeps(self.sweeps, self.generator)
        moved.act(self.groups, descent.actions)
