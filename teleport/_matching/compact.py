"""Coordinate descent over vertices: one permutation or rotation at a time, all others held (Ainsworth et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from teleport._matching.assignment import Kind, assigned, best_of, values_of
from teleport._matching.pairs import Pair
from teleport._symmetry_groups.axis_action import AxisAction
from teleport._symmetry_groups.parts import flat, leading_first

LARGEST = 2**26
"""Elements of the products between all heads of both networks; above that, heads and their insides take turns."""

GAIN = 1e-12
"""Of the inner product, relative to the norms: less is rounding."""


class Descent:
    """Maximises the inner product of two networks over permutations, signs and rotations.

    The groups keep norms, so that this minimises the distance.

    Args:
        pairs: the tensors side by side; their second sides are moved.
        kinds: of each variable that is sought.
        companions: of each variable, those per unit of which it has another element.

    Attributes:
        actions: all that moved the second sides so far, in order.
    """

    def __init__(
        self, pairs: Sequence[Pair], kinds: Mapping[int, Kind], companions: Mapping[int, tuple[int, ...]]
    ) -> None:
        self.pairs, self.kinds, self.companions = pairs, kinds, companions
        self.actions: list[AxisAction] = []
        self.of: dict[int, list[Pair]] = {each: [] for each in kinds}
        for pair in pairs:
            for each in set(pair.block.variables) & set(kinds):
                self.of[each].append(pair)
        self.inside = {
            head: [each for each in kinds if head in companions[each]] if not companions[head] else [] for head in kinds
        }

    def anchored(self) -> None:
        """One update of each variable, at first by the tensors whose other axes are matched or need no match.

        The variable comes next of which these tensors hold the largest share of what tells its units apart.
        """
        energies = {each: [_energy(pair, each) for pair in self.of[each]] for each in self.kinds}
        unknown = set(self.kinds)
        while unknown:
            shares = {}
            for each in sorted(unknown):
                whole = sum(energies[each])
                known = self._known(each, unknown)
                shares[each] = sum(energy for energy, use in zip(energies[each], known, strict=True) if use) / (
                    whole or 1.0
                )
            chosen = max(shares, key=lambda each: (shares[each], -each))
            known = self._known(chosen, unknown)
            use = [pair for pair, known_pair in zip(self.of[chosen], known, strict=True) if known_pair]
            self.update(chosen, use or self.of[chosen])
            unknown.discard(chosen)

    def sweeps(self, most: int, generator: torch.Generator) -> int:
        """Updates of all variables in random order until none gains; returns how many rounds there were."""
        order = sorted(self.kinds)
        for number in range(most):
            gained = False
            for place in torch.randperm(len(order), generator=generator).tolist():
                gained |= self.update(order[place], self.of[order[place]], judged=True)
            if not gained:
                return number + 1
        return most

    def update(self, variable: int, pairs: Sequence[Pair], judged: bool = False) -> bool:
        """The best element of one variable, and of those inside its units, with all others held.

        Args:
            variable: one of ``kinds``.
            pairs: by which it is chosen.
            judged: whether it acts only if the inner product of all tensors grows.

        Returns:
            whether it acted.
        """
        actions = self._joint(variable, pairs) if self.inside[variable] else None
        if actions is None:
            cross = self._cross(variable, pairs)
            actions = [best_of(self.kinds[variable], cross).action(variable, self.companions[variable])]
        touched = _unique(pair for each in actions for pair in self.of[each.variable])
        moved = [pair.moved(actions).second for pair in touched]
        if judged and not self._gains(touched, moved):
            return False
        for pair, values in zip(touched, moved, strict=True):
            pair.second = values
        self.actions = joined(self.actions, actions, self.companions)
        return True

    def _gains(self, pairs: Sequence[Pair], moved: Sequence[Tensor]) -> bool:
        gain = size = 0.0
        for pair, values in zip(pairs, moved, strict=True):
            gain += float((pair.first * (values - pair.second)).sum())
            size += float(pair.first.norm() * pair.second.norm())
        return gain > GAIN * size

    def _cross(self, variable: int, pairs: Sequence[Pair]) -> Tensor:
        """``[copies, units, units]``: by all tensors, the products of the first's units with the second's."""
        cross: Tensor | None = None
        for pair in pairs:
            for place in pair.places(variable):
                lead = pair.leading(place, self.companions[variable])
                product = flat(pair.first, lead) @ flat(pair.second, lead).mT
                cross = product if cross is None else cross + product
        if cross is None:
            raise AssertionError("a variable acts on some tensor")
        return cross

    def _joint(self, head: int, pairs: Sequence[Pair]) -> list[AxisAction] | None:
        """Units (heads) and the elements inside of them at once: each pair of heads at its best inner element."""
        inside, size = self.inside[head], 0
        direct: Tensor | None = None
        crosses: dict[int, Tensor] = {}
        for pair in pairs:
            for place in pair.places(head):
                within = [
                    (at, each) for each in inside for at in pair.places(each) if pair.block.companion(at, head) == place
                ]
                if len(within) != 1:
                    product = flat(pair.first, [place])[0] @ flat(pair.second, [place])[0].mT
                    direct = product if direct is None else direct + product
                    continue
                at, each = within[0]
                others = [one for one in pair.leading(at, self.companions[each]) if one not in (at, place)]
                sides = [leading_first(side, [place, *others, at]) for side in (pair.first, pair.second)]
                count, sizes = sides[0].shape[0], sides[0].shape[1 : 2 + len(others)]
                size = count**2 * torch.Size(sizes).numel() * sizes[-1]
                if size > LARGEST:
                    return None
                left, right = (
                    side.reshape(count, -1, sizes[-1], side[0].numel() // torch.Size(sizes).numel()) for side in sides
                )
                product = torch.einsum("irux,jrvx->ijruv", left, right)
                crosses[each] = product + crosses[each] if each in crosses else product
        gains = direct
        for each, cross in crosses.items():
            value = values_of(self.kinds[each], cross.flatten(0, 2)).reshape(cross.shape[:3]).sum(2)
            gains = value if gains is None else gains + value
        if gains is None or self.kinds[head] is Kind.ROTATION:
            return None
        order = assigned(gains)
        actions = [self._inner(head, each, cross, order) for each, cross in crosses.items()]
        outer = AxisAction(head, (), order=order[None])
        if self.kinds[head] is Kind.SIGNED and direct is not None and not crosses:
            return None
        return [*actions, outer]

    def _inner(self, head: int, variable: int, cross: Tensor, order: Tensor) -> AxisAction:
        """The elements inside of the units, in the second network's order of them."""
        companions = self.companions[variable]
        place = companions.index(head)
        chosen = cross[order.argsort(), torch.arange(len(order), device=order.device)]  # [heads, rest, units, units]
        sizes = self._sizes(variable)
        rest = [size for at, size in enumerate(sizes) if at != place]
        ordered = chosen.reshape(len(order), *rest, *chosen.shape[2:]).movedim(0, place)
        return best_of(self.kinds[variable], ordered.reshape(-1, *chosen.shape[2:])).action(variable, companions)

    def _sizes(self, variable: int) -> list[int]:
        """The numbers of units of a variable's companions."""
        pair = self.of[variable][0]
        lead = pair.leading(pair.places(variable)[0], self.companions[variable])
        return [pair.block.sizes[at] for at in lead[:-1]]

    def _known(self, variable: int, unknown: set[int]) -> list[bool]:
        """Per tensor of a variable, whether all other axes of it are matched, or matched with it."""
        free = {variable, *self.inside[variable]}
        return [not (set(pair.block.variables) & unknown) - free for pair in self.of[variable]]


def joined(
    actions: list[AxisAction], more: Sequence[AxisAction], companions: Mapping[int, tuple[int, ...]]
) -> list[AxisAction]:
    """Two lists of actions as one, where those on a variable that is tied to no other are one."""
    tied = {each for variable, outer in companions.items() if outer for each in (variable, *outer)}
    whole = list(actions)
    for new in more:
        same = [at for at, each in enumerate(whole) if each.variable == new.variable]
        if new.variable in tied or not same:
            whole.append(new)
        else:
            whole[same[0]] = after(whole[same[0]], new)
    return whole


def after(first: AxisAction, second: AxisAction) -> AxisAction:
    """The action of ``second`` after ``first``, on one variable."""
    if first.matrix is not None and second.matrix is not None:
        assert first.inverse is not None
        assert second.inverse is not None
        matrix, inverse = second.matrix @ first.matrix, first.inverse @ second.inverse
        return AxisAction(first.variable, first.companions, matrix=matrix, inverse=inverse)
    order, signs = first.order, first.signs
    assert order is not None
    assert second.order is not None
    if second.signs is not None:  # of units where ``first`` has put them
        back = second.signs.gather(1, order.argsort(1))
        signs = back if signs is None else signs * back
    return AxisAction(first.variable, first.companions, order=order.gather(1, second.order), signs=signs)


def _energy(pair: Pair, variable: int) -> float:
    """How much the units of a variable differ from each other in a tensor of the first network."""
    place = pair.places(variable)[0]
    return float((pair.first - pair.first.mean(place, keepdim=True)).square().sum())


def _unique(pairs: Iterable[Pair]) -> list[Pair]:
    return list({id(pair): pair for pair in pairs}.values())
