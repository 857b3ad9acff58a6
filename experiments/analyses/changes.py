"""Random changes of basis of one model, which itself stays where it is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any

from torch import nn

from experiments.analyses.space import Factors
from teleport import ChangeOfBasis


def random_factors(model: nn.Module, inputs: Any, *, range: float, count: int, seed: int) -> Iterator[Factors]:
    """``count`` intra-landscape changes of basis that leave the activations as they are; the quiver is found once.

    Args:
        model: any module; only looked at.
        inputs: a batch of its inputs.
        range: of tau ~ U(1 - range, 1 + range), below 1.
        count: how many.
        seed: of all of them.

    Raises:
        ValueError: the model has no channel that may be scaled.
    """
    method = ChangeOfBasis(range=range, seed=seed)
    quiver = method.capture(model, inputs)
    if not quiver.scaled:
        raise ValueError("no channel of the model may be scaled, so that it has no change of basis")
    for _ in repeat(None, count):
        change = method.sample(quiver)
        yield {scaled.parameter: scaled.factors(change.tau) for scaled in quiver.scaled.values()}
