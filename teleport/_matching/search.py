"""The search for the element that brings one network nearest to another, from several starts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch

from teleport._change_of_basis.basis_change import BasisChange
from teleport._matching import general
from teleport._matching.assignment import Kind
from teleport._matching.compact import GAIN, Descent
from teleport._matching.groups import Groups, Moved, Part, Tensors
from teleport._matching.pairs import Pair, pairs_of
from teleport._symmetry_groups.axis_action import AxisAction

ROUNDS = 50
"""Of factors, matrices and assignments that take turns at the end."""

ENOUGH = 1e-9
"""A round that shortens the squared distance by less than this share is the last."""

ROUNDING = 1e-15
"""A distance that is smaller, relative to the norm of the parameters, is 0."""


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
