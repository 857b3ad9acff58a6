"""The loss along the line between two networks (Armenta et al., section 4.4, after Li et al. 2018)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Result = TypeVar("Result")


@dataclass(frozen=True)
class Line:
    """The networks ``(1 - alpha) A + alpha B``.

    Attributes:
        first: A, at 0.
        second: B, at 1; of the same architecture.
        inputs: batches of inputs, by whose mean statistics the batch norms of each network on the way standardise.
            Statistics that A and B learnt say nothing of a network between them.
    """

    first: nn.Module
    second: nn.Module
    inputs: Sequence[Any] = ()

    def along(self, alphas: Iterable[float], look: Callable[[nn.Module], Result]) -> list[Result]:
        """What ``look`` says of the network at each alpha; it is in evaluation mode, and the same object each time."""
        model = copy.deepcopy(self.first).eval()
        return [look(self._at(alpha, model)) for alpha in alphas]

    @torch.no_grad()
    def _at(self, alpha: float, model: nn.Module) -> nn.Module:
        ends = zip(self.first.parameters(), self.second.parameters(), strict=True)
        for parameter, (first, second) in zip(model.parameters(), ends, strict=True):
            parameter.copy_(first + alpha * (second - first))
        restandardise(model, self.inputs)
        return model


@torch.no_grad()
def restandardise(model: nn.Module, inputs: Sequence[Any]) -> None:
    """Set each batch norm's running statistics to their means over ``inputs``, in place; no inputs change nothing.

    The model ends in the mode that it had.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms or not inputs:
        return
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # a plain mean over the batches
        module.train()
    for batch in inputs:
        model(batch)
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
        module.training = model.training
