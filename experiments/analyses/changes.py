"""Random changes of basis of one model, which itself stays where it is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any

from torch import nn

from experiments.analyses.space import Factors
from teleport import ChangeOfBasis


class RandomChanges:
    """Intra-landscape changes of basis that leave the activations as they are; the quiver is found once.

    Args:
        model: any module; only looked at.
        inputs: a batch of its inputs.

    Raises:
        ValueError: the model has no channel that may be scaled.
    """

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        self.quiver = ChangeOfBasis().capture(model, inputs)
        if not self.quiver.scaled:
            raise ValueError("no channel of the model may be scaled, so that it has no change of basis")

    def draw(self, *, range: float, count: int, seed: int) -> Iterator[Factors]:
        """``count`` of them, tau ~ U(1 - range, 1 + range) with a range below 1; a seed gives the same ones."""
        method = ChangeOfBasis(range=range, seed=seed)
        for _ in repeat(None, count):
            tau = method.sample(self.quiver).tau
            yield {scaled.parameter: scaled.factors(tau) for scaled in self.quiver.scaled.values()}
