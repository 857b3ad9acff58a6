"""The element of one compact group that maximises an inner product: assignments, signs and rotations in closed form."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from teleport._symmetry_groups.axis_action import AxisAction


class Kind(Enum):
    """The compact group that is sought on a variable."""

    PERMUTATION = "permutation"
    SIGNED = "signed permutation"
    ROTATION = "rotation"
    TURN = "rotation of a plane"

    @property
    def assigns(self) -> bool:
        """Whether its elements are found by the assignment problem."""
        return self in (Kind.PERMUTATION, Kind.SIGNED)


class Best(NamedTuple):
    """The maximiser of ``<A, C>`` over the group, per copy.

    Attributes:
        value: ``[copies]``, the maximum.
        order, signs, matrix: as of :class:`AxisAction`.
    """

    value: Tensor
    order: Tensor | None = None
    signs: Tensor | None = None
    matrix: Tensor | None = None

    def action(self, variable: int, companions: tuple[int, ...]) -> AxisAction:
        """As an action on a variable."""
        inverse = None if self.matrix is None else self.matrix.mT
        return AxisAction(variable, companions, self.order, self.signs, self.matrix, inverse)


def best_of(kind: Kind, cross: Tensor) -> Best:
    """The element that maximises ``<A, cross>``.

    Permutations by the assignment problem (Kuhn 1955; Crouse 2016, in scipy), rotations by the orthogonal Procrustes
    problem (Schönemann 1966), those of a plane without reflections by its angle.

    Args:
        kind: of the group.
        cross: ``[copies, units, units]``, of the first network's units (rows) with the second's.
    """
    if kind is Kind.ROTATION:
        left, singular, right = torch.linalg.svd(cross)
        return Best(singular.sum(-1), matrix=left @ right)
    if kind is Kind.TURN:
        cosine, sine = cross[:, 0, 0] + cross[:, 1, 1], cross[:, 1, 0] - cross[:, 0, 1]
        value = torch.hypot(cosine, sine)
        cosine = torch.where(value > 0, cosine, 1.0) / torch.where(value > 0, value, 1.0)
        sine = sine / torch.where(value > 0, value, 1.0)
        return Best(value, matrix=torch.stack([cosine, -sine, sine, cosine], -1).reshape(-1, 2, 2))
    gains = cross.abs() if kind is Kind.SIGNED else cross
    order = torch.stack([assigned(each) for each in gains])
    value = gains.gather(2, order[..., None])[..., 0].sum(-1)
    if kind is Kind.PERMUTATION:
        return Best(value, order)
    chosen = cross.gather(2, order[..., None])[..., 0]
    signs = torch.ones_like(chosen).scatter(1, order, torch.where(chosen < 0, -1.0, 1.0).to(chosen))
    return Best(value, order, signs)


def values_of(kind: Kind, cross: Tensor) -> Tensor:
    """The maxima alone, ``[copies]``."""
    if kind is Kind.ROTATION:
        found: Tensor = torch.linalg.svdvals(cross).sum(-1)
        return found
    return best_of(kind, cross).value


def assigned(gains: Tensor) -> Tensor:
    """Per row of ``gains [units, units]`` its column, each once, with the largest sum."""
    columns = solver()(gains.detach().cpu().numpy(), maximize=True)[1]
    return torch.as_tensor(columns, device=gains.device)


@cache
def solver() -> Callable[..., Any]:
    """scipy's solver of the assignment problem.

    Raises:
        ModuleNotFoundError: scipy is not installed; the sentence says how it is.
    """
    try:
        from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped,unused-ignore]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "matching permutations needs scipy: pip install 'teleport-suite[match]'", name="scipy"
        ) from error
    found: Callable[..., Any] = linear_sum_assignment
    return found
