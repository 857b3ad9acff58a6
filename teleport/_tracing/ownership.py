"""Ownership of storage: the parameters that a tensor shares memory with, as the parameter itself or a view of it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Owners:
    """Tells which of some named parameters a tensor shares memory with.

    Tensors are compared by memory, not by identity: ``weight.t()``, ``weight.data`` and the rows of a packed projection
    all change when the parameter moves.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._extents: dict[int, list[tuple[int, int, str]]] = {}  # storage -> (first byte, end, name)
        for name, parameter in parameters.items():
            storage = storage_of(parameter)
            if storage is not None:
                self._extents.setdefault(storage, []).append((*_extent(parameter), name))

    def admit(self, name: str, tensor: Tensor) -> None:
        """Take the memory of a tensor for that of a parameter, as long as the tensor exists."""
        storage = storage_of(tensor)
        if storage is not None:
            self._extents.setdefault(storage, []).append((*_extent(tensor), name))
            weakref.finalize(tensor, self._extents.pop, storage, None)

    def of(self, tensor: Tensor | None) -> list[str]:
        """The names of the parameters whose memory ``tensor`` overlaps, mostly none or one."""
        storage = None if tensor is None else storage_of(tensor)
        if tensor is None or storage not in self._extents:
            return []
        first, end = _extent(tensor)
        return [name for start, stop, name in self._extents[storage] if first < stop and start < end]

    def shared(self) -> set[str]:
        """Names of the parameters whose memory overlaps another parameter's."""
        names = set()
        for extents in self._extents.values():
            for index, (start, stop, name) in enumerate(extents):
                for other_start, other_stop, other in extents[:index]:
                    if start < other_stop and other_start < stop:
                        names |= {name, other}
        return names


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The tensors among arguments or results, containers opened."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            if isinstance(value, Tensor):
                yield value
            elif type(value) not in _PLAIN:  # this runs for each argument of each operation
                yield from tensors_in(value)
    elif type(values) not in _PLAIN and isinstance(values, Mapping):
        for value in values.values():
            yield from tensors_in(value)


_PLAIN = {int, float, bool, str, type(None), torch.dtype, torch.device}
"""Types that hold no tensors."""


def storage_of(tensor: Tensor) -> int | None:
    """Identifies a tensor's storage; ``None`` for tensors without one (vmapped, sparse, empty)."""
    try:
        return tensor.untyped_storage().data_ptr() or None
    except (RuntimeError, NotImplementedError):
        return None


def keeps_layout(tensor: Tensor) -> bool:
    """Whether a new tensor like it has the same strides, so that a part has the same offset in both."""
    return torch.empty_like(tensor).stride() == tensor.stride()


def distinct_elements(tensor: Tensor) -> bool:
    """Whether no two elements share memory, as those of an expanded tensor do.

    This is decided by the strides: ``True`` is always right, ``False`` may be wrong for unusual strides.
    """
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return False
            reach += stride * (size - 1)
    return True


def _extent(tensor: Tensor) -> tuple[int, int]:
    """The tensor's first byte in its storage, and the byte after its last."""
    size = tensor.element_size()
    first = int(tensor.storage_offset()) * size
    if tensor.numel() == 0:
        return first, first
    last = sum(int((n - 1) * stride) for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return first, first + (last + 1) * size
