"""Labels: an integer tensor of the shape of what it labels, with the unit that each element scales with (0: none).

Most labels are constant along most axes. They are kept as expanded views, whose stride along such an axis is 0, and
what is computed of them is computed on one element along it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def constant(shape: Sequence[int], unit: int = 0) -> Tensor:
    """The label of a tensor that scales with one unit throughout."""
    return torch.full((), unit, dtype=torch.int64).expand(tuple(shape))


def compact(label: Tensor) -> Tensor:
    """One element along each axis of stride 0; broadcasts to the label."""
    return _shortened([label])[0]


def compacts(*labels: Tensor) -> list[Tensor]:
    """Labels of tensors that broadcast, all in one shape, with one element along the axes that no one varies along."""
    return _shortened(torch.broadcast_tensors(*labels))  # type: ignore[no-untyped-call]


def on_compact(
    function: Callable[..., Tensor], label: Tensor, shape: torch.Size, *options: Any, **named: Any
) -> Tensor:
    """``function`` of a label where it maps axes to themselves and does nothing along one of length 1."""
    return function(compact(label), *options, **named).expand(shape)


def reshaped(label: Tensor, shape: torch.Size) -> Tensor:
    """As ``label.reshape(shape)``, without a copy along first and last axes that stay and are of stride 0."""
    first = 0
    while first < min(label.dim(), len(shape)) and label.shape[first] == shape[first] and not label.stride(first):
        first += 1
    last = 0
    while (
        last < min(label.dim(), len(shape)) - first
        and label.shape[-1 - last] == shape[-1 - last]
        and not label.stride(-1 - last)
    ):
        last += 1
    inner = label[(0,) * first + (...,) + (0,) * last]
    inner = inner.reshape(shape[first : len(shape) - last])
    return inner[(None,) * first + (...,) + (None,) * last].expand(shape)


def side_by_side(labels: Sequence[Tensor], dim: int) -> Tensor:
    """As ``torch.cat``."""
    dim %= labels[0].dim()
    shape = list(labels[0].shape)
    shape[dim] = sum(label.shape[dim] for label in labels)
    return torch.cat(_shortened(labels, but=dim), dim).expand(shape)


def _shortened(labels: Sequence[Tensor], but: int = -1) -> list[Tensor]:
    """One element along each axis, except ``but``, that is of stride 0 in all labels."""
    varies = [
        axis == but or any(label.stride(axis) and label.shape[axis] != 1 for label in labels)
        for axis in range(labels[0].dim())
    ]
    index = tuple(slice(None) if kept else slice(0, 1) for kept in varies)
    return [label[index] for label in labels]
