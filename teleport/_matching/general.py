"""Invertible matrices on a vertex: those of least norm, in closed form, and those that bring a network nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from teleport._matching.pairs import Pair
from teleport._symmetry_groups.axis_action import AxisAction
from teleport._symmetry_groups.parts import flat

SMALLEST = 1e-8
"""Of the eigenvalues of a Gram matrix, relative to the largest: with a smaller one its matrix stays the identity."""

NEAR = 1e-5
"""A shorter step is taken whole, and the error after it is of its square."""

SHARES = (1.0, 0.5, 0.25, 0.125, 1 / 32, 1 / 256)
"""Of a step, of which the best is taken."""


@dataclass(frozen=True)
class Sides:
    """What the distance depends on: ``|a - G b|^2`` over axes that G multiplies and ``|a - G^-T b|^2`` over dual ones.

    Attributes:
        gram, dual_gram: ``b b^T`` over the axes of each kind, ``[copies, units, units]``.
        cross, dual_cross: ``a b^T``.
    """

    gram: Tensor
    dual_gram: Tensor
    cross: Tensor
    dual_cross: Tensor

    def costs(self, matrix: Tensor) -> Tensor:
        """The squared distance per copy, but for a constant; infinite if the matrix has no inverse."""
        inverse, failed = torch.linalg.inv_ex(matrix)
        dual = inverse.mT
        one = ((matrix @ self.gram - 2 * self.cross) * matrix).sum((1, 2))
        other = ((dual @ self.dual_gram - 2 * self.dual_cross) * dual).sum((1, 2))
        cost = one + other
        return torch.where((failed == 0) & cost.isfinite(), cost, torch.inf)

    def step(self) -> Tensor:
        """The step ``X`` of Gauss and Newton from the identity to ``I + X``, a Sylvester equation per copy."""
        right = (self.cross - self.gram) - (self.dual_cross - self.dual_gram).mT
        low, inner = torch.linalg.eigh(self.gram)
        high, outer = torch.linalg.eigh(self.dual_gram)
        sums = high.clamp(min=0)[:, :, None] + low.clamp(min=0)[:, None, :]
        least = 1e-14 * sums.amax((1, 2), keepdim=True).clamp(min=1e-300)
        step: Tensor = outer @ ((outer.mT @ right @ inner) / sums.clamp(min=least)) @ inner.mT
        return step

    def balanced_factor(self) -> Tensor:
        """The multiples of the identity of least norm, per copy."""
        own, dual = _trace(self.gram), _trace(self.dual_gram)
        both = (own > 0) & (dual > 0)
        factor = (torch.where(both, dual, 1.0) / torch.where(both, own, 1.0)).pow(0.25)
        return self._multiples(factor)

    def nearest_factor(self) -> Tensor:
        """The multiples of the identity that are nearest, per copy.

        A factor r costs ``r^2 g - 2 r c + d / r^2 - 2 e / r``; its derivative times ``r^3`` has four roots.
        """
        own, dual = _trace(self.gram), _trace(self.dual_gram)
        cross, dual_cross = _trace(self.cross), _trace(self.dual_cross)
        whole = torch.where(own > 0, own, 1.0)
        companion = torch.zeros(len(own), 4, 4).to(own)
        companion[:, 1:, :3] = torch.eye(3).to(own)
        companion[:, :, 3] = torch.stack([dual, -dual_cross, torch.zeros_like(own), cross], -1) / whole[:, None]
        roots = torch.linalg.eigvals(companion).real
        trials = torch.cat([roots, torch.ones_like(own)[:, None]], 1)
        trials = torch.where(trials > 0, trials, 1.0)
        sizes = own[:, None] * trials**2 - 2 * cross[:, None] * trials
        costs = sizes + dual[:, None] / trials**2 - 2 * dual_cross[:, None] / trials
        factor = trials.gather(1, costs.argmin(1, keepdim=True))[:, 0]
        return self._multiples(torch.where(own > 0, factor, 1.0))

    def _multiples(self, factor: Tensor) -> Tensor:
        identity = torch.eye(self.gram.shape[1]).to(self.gram)
        return factor[:, None, None] * identity


def sides_of(pairs: Sequence[Pair], variable: int, companions: tuple[int, ...]) -> Sides:
    """The products of both networks over all axes on which a variable acts."""
    totals: list[Tensor | None] = [None] * 4
    for pair in pairs:
        for place in pair.places(variable):
            lead = pair.leading(place, companions)
            one, other = flat(pair.first, lead), flat(pair.second, lead)
            dual = int(pair.block.dual[place])
            for at, product in ((dual, other @ other.mT), (2 + dual, one @ other.mT)):
                held = totals[at]
                totals[at] = product if held is None else held + product
    shape = next(each for each in totals if each is not None)
    gram, dual_gram, cross, dual_cross = (torch.zeros_like(shape) if each is None else each for each in totals)
    return Sides(gram, dual_gram, cross, dual_cross)


def balanced(sides: Sides) -> Tensor:
    """The matrices of least norm, up to rotations: ``G^T G`` is the geometric mean of ``gram^-1`` and ``dual_gram``."""
    identity = torch.eye(sides.gram.shape[1]).to(sides.gram).expand_as(sides.gram)
    good = _well(sides.gram) & _well(sides.dual_gram)
    gram = torch.where(good[:, None, None], sides.gram, identity)
    dual = torch.where(good[:, None, None], sides.dual_gram, identity)
    half, back = _power(gram, 0.5), _power(gram, -0.5)
    mean = back @ _power(half @ dual @ half, 0.5) @ back
    return _power(mean, 0.5)


def nearer(sides: Sides) -> Tensor:
    """Matrices, per copy at least as near as the identity: by least squares on one side, or a step on both."""
    identity = torch.eye(sides.gram.shape[1]).to(sides.gram).expand_as(sides.gram).contiguous()
    step = sides.step()
    near = step.abs().amax((1, 2)) < NEAR  # the cost no longer tells the difference
    trials = [identity + share * step for share in SHARES]
    trials.append(torch.linalg.lstsq(sides.gram.mT, sides.cross.mT, driver="gelsd").solution.mT)
    best, cost = identity, sides.costs(identity)
    for trial in trials:
        if not bool(trial.isfinite().all()):
            continue
        reached = sides.costs(trial)
        better = reached < cost
        best = torch.where(better[:, None, None], trial, best)
        cost = torch.where(better, reached, cost)
    return torch.where(near[:, None, None], identity + step, best)


def acting(variable: int, companions: Mapping[int, tuple[int, ...]], matrix: Tensor) -> AxisAction:
    """Matrices as an action on a variable."""
    return AxisAction(variable, companions[variable], matrix=matrix, inverse=torch.linalg.inv(matrix))


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)


def _well(gram: Tensor) -> Tensor:
    values = torch.linalg.eigvalsh(gram)
    good: Tensor = values[:, 0] > SMALLEST * values[:, -1]
    return good


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    power: Tensor = vectors @ (values.clamp(min=1e-300).pow(exponent)[..., None] * vectors.mT)
    return power
