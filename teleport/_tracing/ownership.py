"""Whose memory a tensor is: the parameters that it is, or is a view of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Owners:
    """Tells which of some named parameters a tensor shares memory with.

    Memory, not object identity, is what counts: ``weight.t()``, ``weight.data`` and the rows of a packed projection
    all change when the parameter moves.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._held: dict[int, list[tuple[int, int, str]]] = {}  # storage -> (first byte, end, name)
        for name, parameter in parameters.items():
            storage = storage_of(parameter)
            if storage is not None:
                self._held.setdefault(storage, []).append((*_extent(parameter), name))

    def of(self, tensor: Tensor | None) -> list[str]:
        """The names of the parameters whose memory ``tensor`` reaches into, mostly none or one."""
        storage = None if tensor is None else storage_of(tensor)
        if tensor is None or storage not in self._held:
            return []
        first, end = _extent(tensor)
        return [name for start, stop, name in self._held[storage] if first < stop and start < end]

    def shared(self) -> set[str]:
        """Parameters whose memory reaches into another parameter's."""
        names = set()
        for held in self._held.values():
            for index, (start, stop, name) in enumerate(held):
                for other_start, other_stop, other in held[:index]:
                    if start < other_stop and other_start < stop:
                        names |= {name, other}
        return names


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The tensors among arguments or results, containers opened."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from tensors_in(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from tensors_in(value)


def storage_of(tensor: Tensor) -> int | None:
    """Identifies a tensor's memory; ``None`` for tensors that have none of their own (vmapped, sparse, empty)."""
    try:
        return tensor.untyped_storage().data_ptr() or None
    except (RuntimeError, NotImplementedError):
        return None


def keeps_layout(tensor: Tensor) -> bool:
    """Whether a new tensor like it has the same strides, so that a part lies at the same place in both."""
    return torch.empty_like(tensor).stride() == tensor.stride()


def distinct_elements(tensor: Tensor) -> bool:
    """Whether no two elements share memory (an expanded tensor's do); decided by the strides, never wrongly yes."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return False
            reach += stride * (size - 1)
    return True


def _extent(tensor: Tensor) -> tuple[int, int]:
    """The first byte of the tensor's storage that it reaches, and the end."""
    size = tensor.element_size()
    first = int(tensor.storage_offset()) * size
    if tensor.numel() == 0:
        return first, first
    last = sum(int((n - 1) * stride) for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return first, first + (last + 1) * size
