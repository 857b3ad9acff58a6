"""How far teleports go, and what they leave of the loss (Armenta et al., section 4.2)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from experiments.analyses.space import LossFn, flatten
from teleport import ChangeOfBasis


@dataclass(frozen=True)
class Teleported:
    """One teleport of a network W to V.

    Attributes:
        weight_difference: the mean of ``|V - W|`` over all parameters.
        loss_before: of W on the batch.
        loss_after: of V with its teleported activations.
    """

    weight_difference: float
    loss_before: float
    loss_after: float


@torch.no_grad()
def level_curve(
    model: nn.Module, batch: Any, loss_fn: LossFn, changes: Sequence[ChangeOfBasis]
) -> Iterator[Teleported]:
    """Teleport a copy of ``model`` by each of ``changes``, all from where it is.

    Args:
        model: in the mode in which it is looked at.
        batch: what ``loss_fn`` takes.
        loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
        changes: methods with seeds of their own.
    """
    before = loss_fn(model, batch).item()
    start = flatten(model.parameters())
    for change in changes:
        moved = copy.deepcopy(model)
        report = change(moved, [batch])
        distance = (flatten(moved.parameters()) - start).abs().mean().item()
        yield Teleported(distance, before, loss_fn(report.model, batch).item())
