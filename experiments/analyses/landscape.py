"""The loss over a plane of two parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


@torch.no_grad()
def surface(first: nn.Parameter, second: nn.Parameter, ticks: Tensor, loss: Callable[[], Tensor]) -> Tensor:
    """``loss()`` with ``first`` at ``ticks[i]`` and ``second`` at ``ticks[j]``, [n, n]; both come back as they were.

    Args:
        first: of one element.
        second: of one element.
        ticks: [n].
        loss: evaluates what depends on them, a scalar tensor.
    """
    kept = first.clone(), second.clone()
    found = torch.empty(len(ticks), len(ticks), dtype=first.dtype)
    for i, x in enumerate(ticks):
        for j, y in enumerate(ticks):
            first.fill_(x)
            second.fill_(y)
            found[i, j] = loss()
    first.copy_(kept[0])
    second.copy_(kept[1])
    return found
