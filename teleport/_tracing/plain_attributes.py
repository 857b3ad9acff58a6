"""The attributes of modules that are neither parameters, buffers nor submodules: counters, records, caches.

A model may keep in them what it computed in earlier evaluations. They are saved, so that each evaluation of a teleport
starts from the same ones, and a cache that one evaluation fills is not read by the next, at other parameters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import cached_property
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from teleport._tracing.ownership import storage_of
from teleport._tracing.saved_tensors import SavedTensor

OF_TORCH = frozenset(vars(nn.Module()))
"""Attributes that every module has."""

LARGEST = 10_000
"""Containers with more entries are left alone; they hold data."""

ABSENT = object()

Slot = tuple[nn.Module, str]
"""A module and the name of an attribute of it."""


class PlainAttributes:
    """The attributes of some modules as they are now; containers and tensors in them are saved, too.

    Tensors that share memory with parameters or buffers are left alone.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        modules = [module for module in modules if not type(module).__module__.startswith(_LEFT_ALONE)]
        held = (*(p for m in modules for p in m.parameters(False)), *(b for m in modules for b in m.buffers(False)))
        self._owned = {storage_of(tensor) for tensor in held}
        self._modules = [(vars(module), _own(module)) for module in modules]
        self._original = [dict(saved) for _, saved in self._modules]
        self._containers: list[tuple[Any, Any]] = []
        self._tensors: list[SavedTensor] = []
        self._seen: set[int] = set()
        for module, (_, saved) in zip(modules, self._modules, strict=True):
            for value in saved.values():
                self._save(value, _package(module))
        self._memoized = [each for kind in {type(module) for module in modules} for each in _memoized(kind)]
        self._index = {id(vars(module)): number for number, module in enumerate(modules)}

    def restore(self) -> None:
        """Set all attributes to what they were, or to what :meth:`set_to` replaced it by."""
        for current, saved in self._modules:
            if len(current) != len(OF_TORCH) + len(saved) or any(
                current.get(name, current) is not value for name, value in saved.items()
            ):
                _replace_attributes(current, saved)
        for container, entries in self._containers:
            _refill(container, entries)
        for tensor in self._tensors:
            tensor.restore()
        for function in self._memoized:
            function.cache_clear()

    def restore_original(self) -> None:
        """Set all attributes to what they were at first."""
        for (_, saved), original in zip(self._modules, self._original, strict=True):
            saved.clear()
            saved.update(original)
        self.restore()

    def set_to(self, slot: Slot, value: Any) -> None:
        """From now on the attribute is restored to ``value``; it is absent if that is :data:`ABSENT`."""
        module, name = slot
        _, saved = self._modules[self._index[id(vars(module))]]
        saved[name] = value
        if value is ABSENT:
            del saved[name]

    def tensors_in(self, value: Any) -> Iterator[Tensor]:
        """The floating-point tensors in the value of an attribute, without those that are part of the model."""
        waiting, seen = [value], set[int]()
        while waiting:
            each = waiting.pop()
            if id(each) in seen:
                continue
            seen.add(id(each))
            if isinstance(each, Tensor):
                if each.is_floating_point() and each.numel() and storage_of(each) not in self._owned:
                    yield each
            elif not isinstance(each, nn.Module):
                waiting += _entries(each, None)

    def _save(self, value: Any, package: str) -> None:
        waiting = [value]
        while waiting:
            each = waiting.pop()
            if id(each) in self._seen or isinstance(each, nn.Module):
                continue
            self._seen.add(id(each))
            if isinstance(each, Tensor):
                if type(each) is Tensor and storage_of(each) not in self._owned:
                    self._tensors.append(SavedTensor(each))
                continue
            entries = _entries(each, package)
            if (entries and not isinstance(each, tuple)) or isinstance(each, dict | list | set | deque):
                container = each if isinstance(each, dict | list | set | deque) else vars(each)
                if len(container) <= LARGEST:
                    self._containers.append((container, container.copy()))
            waiting += entries


def _own(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in OF_TORCH}


def _package(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _entries(value: Any, package: str | None) -> list[Any]:
    """The entries of a container, or the attributes of an object whose class is of the same package."""
    if isinstance(value, dict):
        return list(value.values()) if len(value) <= LARGEST else []
    if isinstance(value, list | tuple | set | deque):
        return list(value) if len(value) <= LARGEST else []
    if isinstance(value, type | ModuleType) or callable(value) or not hasattr(value, "__dict__"):
        return []
    return list(vars(value).values()) if package in (None, _package(value)) else []


def _replace_attributes(current: dict[str, Any], saved: dict[str, Any]) -> None:
    for name in [name for name in current if name not in saved and name not in OF_TORCH]:
        del current[name]
    current.update(saved)


def _refill(container: Any, entries: Any) -> None:
    """Restore the entries of a container, which stays the same object."""
    if len(container) == len(entries):
        if isinstance(container, dict):
            if all(container.get(name, container) is value for name, value in entries.items()):
                return
        elif isinstance(container, set):
            if container == entries:
                return
        elif all(one is other for one, other in zip(container, entries, strict=True)):
            return
    container.clear()
    container.extend(entries) if isinstance(container, list | deque) else container.update(entries)


def _memoized(kind: type) -> list[Any]:
    """The methods that ``functools.cache`` or ``lru_cache`` wraps."""
    classes = [each for each in kind.__mro__ if not each.__module__.startswith("torch.") and each is not object]
    return [value for each in classes for value in vars(each).values() if hasattr(value, "cache_clear")]


def is_computed_on_access(slot: Slot) -> bool:
    """Whether the attribute is a ``functools.cached_property``."""
    return isinstance(getattr(type(slot[0]), slot[1], None), cached_property)


_LEFT_ALONE = ("torch.nn.parallel", "torch.distributed", "torch._dynamo", "torch.jit", "torch.fx", "teleport.")
"""Their modules keep the state of torch's own machinery, and the factors of teleported activations."""
