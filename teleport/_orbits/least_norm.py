"""The point of least norm on an orbit, and how far the parameters lie above it.

The squared norm is convex along factors and along the geodesics of general matrices, so that a stationary point on the
orbit is a minimum, and two of them differ by rotations alone (Kempf and Ness 1979).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from teleport._matching.groups import Groups, Moved
from teleport._matching.search import Search
from teleport._symmetry_groups.symmetries import Symmetries

ROUNDS = 100
"""Of matrices and factors that take turns."""

ENOUGH = 1e-13
"""A round that shortens the squared norm by less than this share is the last."""


def least_norm(symmetries: Symmetries, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters of least norm on the orbit, up to rotations.

    Where the infimum is not attained (a channel whose weights on one side are zero), a point near it.

    Args:
        symmetries: of the network.
        parameters: float64, by name.
    """
    groups = Groups.of(symmetries, "all", list(parameters))
    moved = Moved({name: each.clone() for name, each in parameters.items()})
    if groups.compact:
        return moved.tensors
    search = Search(groups, dict(parameters), moved.tensors, torch.Generator(), 0)
    reached = squared_norm(moved.tensors)
    for _ in range(ROUNDS):
        trial = moved.copy()
        search.balance(trial)
        squared = squared_norm(trial.tensors)
        if not squared < reached:
            break
        gain, moved, reached = reached - squared, trial, squared
        if gain <= ENOUGH * reached:
            break
    return moved.tensors


def squared_norm(parameters: Mapping[str, Tensor]) -> float:
    """The sum of the squares of all parameters."""
    return sum(float(each.square().sum()) for each in parameters.values())
