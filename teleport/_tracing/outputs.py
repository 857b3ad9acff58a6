"""Comparison of a model's outputs before and after a move, for a change of basis without a loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[[nn.Module, Any], Any]


def call_model(model: nn.Module, batch: Any) -> Any:
    """``model(inputs)`` of a batch that is ``(inputs, ...)`` or the inputs themselves.

    A mapping (a dictionary, a ``BatchEncoding``) is passed as keyword arguments if the model takes these names.
    """
    inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
    if isinstance(inputs, Mapping) and _takes(model, inputs):
        return model(**inputs)
    return model(inputs)


def _takes(model: nn.Module, named: Mapping[str, Any]) -> bool:
    """Whether the forward pass has parameters of these names; that of the model within a wrapper."""
    for name in ("module", "_orig_mod"):
        inner = model._modules.get(name)
        if inner is not None and len(model._modules) == 1:
            return _takes(inner, named)
    try:
        inspect.signature(model.forward).bind(**named)
    except (TypeError, ValueError):
        return False
    return True


def tensors_returned(result: Any) -> Iterator[Tensor]:
    """The tensors that a model returned: containers opened, and other objects (a distribution) by their attributes."""
    waiting, seen = [result], set()
    while waiting:
        each = waiting.pop()
        if isinstance(each, Tensor):
            yield each
        elif id(each) not in seen:
            seen.add(id(each))
            waiting += _parts(each)


def _parts(value: Any) -> list[Any]:
    """The elements of a container, or the attributes of an object; none of functions, classes and modules."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, ModuleType) or callable(value):
        return []
    if is_dataclass(value):
        return [getattr(value, each.name) for each in fields(value)]
    return list(getattr(value, "__dict__", {}).values())


@torch.no_grad()
def outputs_of(model: nn.Module, batch: Any, forward: Forward) -> list[Tensor]:
    """Copies of all floating-point tensors that ``forward`` returns, containers and objects opened.

    Raises:
        ValueError: there is no such tensor.
    """
    outputs = [tensor.clone() for tensor in tensors_returned(forward(model, batch)) if tensor.is_floating_point()]
    if not outputs:
        raise ValueError("forward returned no floating-point tensor to compare")
    return outputs


def difference(before: Iterable[Tensor], after: Iterable[Tensor]) -> float:
    """The largest ``max |after - before| / max |before|``; infinite if shapes differ, or which elements are finite."""
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
