"""What a model returns, compared: how a change of basis is judged where there is no loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from teleport.ownership import tensors_in

Forward = Callable[[nn.Module, Any], Any]


def call_model(model: nn.Module, batch: Any) -> Any:
    """``model(inputs)`` of a batch that is ``(inputs, ...)`` or the inputs themselves."""
    return model(batch[0] if isinstance(batch, (tuple, list)) else batch)


@torch.no_grad()
def outputs_of(model: nn.Module, batch: Any, forward: Forward) -> list[Tensor]:
    """Copies of all floating-point tensors that ``forward`` returns, containers opened.

    Raises:
        ValueError: there is none.
    """
    kept = [tensor.clone() for tensor in tensors_in(forward(model, batch)) if tensor.is_floating_point()]
    if not kept:
        raise ValueError("forward returned no tensor of numbers, in a tuple, list or mapping, to compare")
    return kept


def difference(before: Iterable[Tensor], after: Iterable[Tensor]) -> float:
    """The largest ``max |after - before| / max |before|``; infinite where shapes, or what is finite, differ."""
    worst = 0.0
    for old, new in zip(before, after, strict=True):
        if old.shape != new.shape or not torch.equal(old.isfinite(), new.isfinite()):
            return float("inf")
        if not old.numel():
            continue
        finite = old.isfinite()
        old, new = (torch.where(finite, tensor.double(), 0) for tensor in (old, new))
        scale = float(old.abs().max()) or 1.0
        worst = max(worst, float((new - old).abs().max()) / scale)
    return worst
