"""Scale indices: the integer tensor of a tensor's shape with the scale variable of each element (0: it carries 1).

Most scale indices are constant along most axes. They are kept as expanded views, whose stride along such an axis is 0,
and functions of them are computed on one element along it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def constant(shape: Sequence[int], variable: int = 0) -> Tensor:
    """The scale index of a tensor that scales with one scale variable throughout."""
    return torch.full((), variable, dtype=torch.int64).expand(tuple(shape))


def compact(scale_index: Tensor) -> Tensor:
    """One element along each axis of stride 0; broadcasts to the scale index."""
    return _shortened([scale_index])[0]


def compacts(*scale_indices: Tensor) -> list[Tensor]:
    """Scale indices of tensors that broadcast, all in one shape, with one element along axes on which none varies."""
    return _shortened(torch.broadcast_tensors(*scale_indices))  # type: ignore[no-untyped-call]


def on_compact(
    function: Callable[..., Tensor], scale_index: Tensor, shape: torch.Size, *options: Any, **named: Any
) -> Tensor:
    """``function`` of a scale index, for functions that keep the axes and do nothing along one of length 1."""
    return function(compact(scale_index), *options, **named).expand(shape)


def reshaped(scale_index: Tensor, shape: torch.Size) -> Tensor:
    """As ``scale_index.reshape(shape)``, without a copy along first and last axes that stay and are of stride 0."""
    first = 0
    while (
        first < min(scale_index.dim(), len(shape))
        and scale_index.shape[first] == shape[first]
        and not scale_index.stride(first)
    ):
        first += 1
    last = 0
    while (
        last < min(scale_index.dim(), len(shape)) - first
        and scale_index.shape[-1 - last] == shape[-1 - last]
        and not scale_index.stride(-1 - last)
    ):
        last += 1
    inner = scale_index[(0,) * first + (...,) + (0,) * last]
    inner = inner.reshape(shape[first : len(shape) - last])
    return inner[(None,) * first + (...,) + (None,) * last].expand(shape)


def side_by_side(scale_indices: Sequence[Tensor], dim: int) -> Tensor:
    """As ``torch.cat``."""
    dim %= scale_indices[0].dim()
    shape = list(scale_indices[0].shape)
    shape[dim] = sum(scale_index.shape[dim] for scale_index in scale_indices)
    return torch.cat(_shortened(scale_indices, but=dim), dim).expand(shape)


def _shortened(scale_indices: Sequence[Tensor], but: int = -1) -> list[Tensor]:
    """One element along each axis, except ``but``, that is of stride 0 in all scale indices."""
    varies = [
        axis == but or any(scale_index.stride(axis) and scale_index.shape[axis] != 1 for scale_index in scale_indices)
        for axis in range(scale_indices[0].dim())
    ]
    index = tuple(slice(None) if kept else slice(0, 1) for kept in varies)
    return [scale_index[index] for scale_index in scale_indices]
