"""The squared gradient norm as a function of factors and general matrices, in closed form.

A matrix ``M`` that multiplies an axis of the weights multiplies that axis of their gradient by ``M^-T``, and dual axes
by ``M``. So the gradient at any point of the orbit is a linear image of that at its start. With ``A = sum G G^T`` over
the axes of ``M`` and ``B = sum G G^T`` over its dual ones the squared norm is ``tr(A P^-1) + tr(B P)``, ``P = M^T M``.
It depends on ``P`` alone, as rotations keep the gradient norm, and is convex along ``M = exp(t X) S`` for symmetric
``X``. Hence ``M`` is kept as its symmetric positive factor ``S``, whose eigenvalues the bound holds. The derivative by
``X`` is ``2 (B - A)``: minus twice the moment of the gradient (:mod:`teleport._symmetry_groups.tangents`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from teleport._engine.statuses import Stopped
from teleport._rescaling.ascent import SquaredGradientNorm
from teleport._symmetry_groups.axis_action import AxisAction
from teleport._symmetry_groups.parts import act_on
from teleport._symmetry_groups.tangents import TangentSpace


@dataclass(frozen=True, eq=False)
class Position:
    """Where on the orbit, or a direction from there.

    Attributes:
        logarithms: ``[classes]``, of the factors.
        matrices: of each variable ``[copies, units, units]``, symmetric and positive; of a direction symmetric.
    """

    logarithms: Tensor
    matrices: Mapping[int, Tensor]

    @classmethod
    def start(cls, space: TangentSpace) -> Position:
        """The identity."""
        return cls(torch.zeros_like(space.sign), space.identities())

    def equals(self, other: Position) -> bool:
        """Whether both are the same, bit for bit."""
        pairs = [(each, other.matrices[variable]) for variable, each in self.matrices.items()]
        pairs.append((self.logarithms, other.logarithms))
        return all(torch.equal(one, two) for one, two in pairs)


class SquaredGradientNormOfGroup(SquaredGradientNorm[Position]):
    """``|grad L|^2`` along the orbit.

    Args:
        space: of the symmetries that may act.
        gradients: at ``origin``, float64, by name, of the parameters that move.
        origin: where they were computed.
        constant: the squared norm of the gradients of all other parameters.
    """

    def __init__(self, space: TangentSpace, gradients: Mapping[str, Tensor], origin: Position, constant: float) -> None:
        self.space, self.gradients, self.origin, self.constant = space, gradients, origin, constant
        self._last: tuple[Position, dict[str, Tensor]] = (origin, dict(gradients))

    def at(self, x: Position) -> float:
        """The squared norm."""
        return self.constant + sum(float(each.square().sum()) for each in self.gradients_at(x).values())

    def gradients_at(self, x: Position) -> dict[str, Tensor]:
        """The gradients of the parameters that move, at a point of the orbit, up to rotations."""
        if self._last[0] is not x:
            moved = {name: each.clone() for name, each in self.gradients.items()}
            self.space.multiply(moved, self.origin.logarithms - x.logarithms)  # gradients are divided
            actions = []
            for variable, matrix in x.matrices.items():
                back = torch.linalg.solve(matrix, self.origin.matrices[variable])  # the inverse of what acts on weights
                on = torch.linalg.solve(self.origin.matrices[variable], matrix)
                companions = self.space.symmetries.companions[variable]
                actions.append(AxisAction(variable, companions, matrix=back, inverse=on))
            act_on(self.space.symmetries.axes, actions, moved)
            self._last = x, moved
        return self._last[1]

    def uphill(self, x: Position, lr: float, bound: float) -> Position | Stopped:
        """The direction of the gradient; ``lr`` is the largest change of the logarithm of a factor or an eigenvalue."""
        found = self.space.moments(self.gradients_at(x))
        logarithms = -found.logarithms
        held = (x.logarithms.abs() >= bound) & (x.logarithms.sign() == logarithms.sign())
        free = torch.where(held, 0.0, logarithms)
        matrices = {variable: -(each + each.mT) / 2 for variable, each in found.matrices.items()}
        largest = max(
            float(free.abs().max()) if len(free) else 0.0,
            *(float(torch.linalg.eigvalsh(each).abs().max()) for each in matrices.values()),
            0.0,
        )
        if not largest > 0:
            return Stopped.BOUND_REACHED if bool((logarithms != 0).any()) else Stopped.NO_ASCENT
        return Position(free * (lr / largest), {variable: each * (lr / largest) for variable, each in matrices.items()})

    def along(self, x: Position, direction: Position, length: float, bound: float) -> Position:
        """``exp(length X) S``, but for a rotation from the left; eigenvalues beyond the bound are cut."""
        logarithms = (x.logarithms + length * direction.logarithms).clamp(-bound, bound)
        matrices = {}
        for variable, held in x.matrices.items():
            grown = torch.linalg.matrix_exp(length * direction.matrices[variable]) @ held
            squares, vectors = torch.linalg.eigh(grown.mT @ grown)
            values = squares.clamp(math.exp(-2 * bound), math.exp(2 * bound)).sqrt()
            matrices[variable] = (vectors * values[:, None, :]) @ vectors.mT
        return Position(logarithms, matrices)
