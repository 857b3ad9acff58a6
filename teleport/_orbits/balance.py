"""How far the two sides of each vertex of a network are from balance."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from teleport._orbits.report import OrbitVertex
from teleport._symmetry_groups.places import Generator
from teleport._symmetry_groups.symmetries import GROUPS
from teleport._symmetry_groups.tangents import TangentSpace


def vertices_of(space: TangentSpace, parameters: Mapping[str, Tensor]) -> list[OrbitVertex]:
    """The imbalance of each group of channels and of each vertex of matrices.

    Args:
        space: of the network.
        parameters: float64, by name.
    """
    moments, sizes = space.moments(parameters), space.sizes(parameters)
    found, seen = [], set()
    for name, classes in space.symmetries.quiver.channel_classes.items():
        own = torch.unique(space.of[classes.cpu()])
        own = own[(space.sign[own] != 0) & torch.tensor([int(each) not in seen for each in own], dtype=torch.bool)]
        if len(own):
            seen |= set(own.tolist())
            apart, both = moments.logarithms[own].abs().sum(), sizes.logarithms[own].sum()
            found.append(OrbitVertex(name, "scaling", len(own), _ratio(apart, both)))
    for variable, moment in moments.matrices.items():
        name = space.name_of(variable)
        apart, both = moment.flatten(1).norm(dim=1).sum(), sizes.matrices[variable].sum()
        units = moment.shape[0] * moment.shape[1]
        found.append(OrbitVertex(name, GROUPS[space.symmetries.levels[variable]], units, _ratio(apart, both)))
    return found


def apart(sides: Generator) -> float:
    """The sizes of differences of both sides, or of changes of them, added up over all vertices."""
    return float(sides.logarithms.abs().sum()) + sum(
        float(each.flatten(1).norm(dim=1).sum()) for each in sides.matrices.values()
    )


def relative(sides: Generator, sizes: Generator) -> float:
    """Differences of both sides relative to the sizes that they have; 0 of a network without such vertices."""
    whole = apart(sizes)
    return apart(sides) / whole if whole else 0.0


def _ratio(apart: Tensor, both: Tensor) -> float:
    return float(apart / both) if bool(both > 0) else 0.0
