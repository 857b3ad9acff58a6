"""A point in the domain of a test function, and the rotations that move it along a level set."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from experiments.configuration.model_config import PointConfig
from experiments.errors import UserError, one_of
from experiments.functions import FUNCTIONS
from experiments.tasks import Spec
from teleport import UnsupportedModel
from teleport._symmetry.orbit import Action

FITS = ("function",)


class Point(nn.Module):
    """A model whose output is its parameter ``coordinates``, independent of the inputs; in double precision.

    Args:
        start: the initial coordinates.
    """

    def __init__(self, start: list[float]) -> None:
        super().__init__()
        self.coordinates = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        """The point, repeated for each of b inputs, [b, n]."""
        return self.coordinates.expand(len(inputs), -1)


def build(config: PointConfig, spec: Spec) -> Point:
    """The point ``config.start``.

    Raises:
        UserError: the number of coordinates is not the number of variables of the function.
    """
    if len(config.start) != spec.outputs:
        raise UserError(
            f"model.start has {len(config.start)} coordinates, but the function has {spec.outputs} variables"
        )
    return Point(list(config.start))


def rotation_action(name: str) -> Action:
    """The group action on a :class:`Point` that preserves the test function ``name``: a rotation by the angle theta.

    Raises:
        UserError: there is no such function. The action raises ``UnsupportedModel`` for another model.
    """
    if name not in FUNCTIONS:
        raise one_of("action of teleport=orbit (a test function)", name, sorted(FUNCTIONS))
    function = FUNCTIONS[name]

    def action(theta: Tensor, weights: dict[str, Tensor]) -> Mapping[str, Tensor]:
        if "coordinates" not in weights:
            raise UnsupportedModel("it is not model=point, on whose coordinates the group acts")
        x, y = weights["coordinates"]
        return {"coordinates": torch.stack(function.rotated(x, y, theta.cos(), theta.sin()))}

    return action
