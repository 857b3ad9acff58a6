"""Random changes of basis of one model, which itself stays where it is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import torch
from teleport.find_quiver import find_quiver
from teleport.sampling import draw_tau
from torch import nn

from experiments.analyses.space import Factors
from teleport.undisturbed import undisturbed


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
    with undisturbed(model):
        quiver = find_quiver(lambda: model(inputs), dict(model.named_parameters()))
    if not quiver.scaled:
        raise ValueError("no channel of the model may be scaled, so that it has no change of basis")
    generator = torch.Generator().manual_seed(seed)
    for _ in repeat(None, count):
        tau = quiver.complete(draw_tau(len(quiver.freedom), "intra", range, 1.0, generator))
        yield {scaled.parameter: scaled.factors(tau) for scaled in quiver.scaled.values()}
