"""The attributes of modules that are neither parameters, buffers nor submodules: counters, records, caches.

A model may keep in them what it computed in earlier evaluations. They are saved, so that each evaluation of a teleport
starts from the same ones, and a cache that one evaluation fills is not read by the next, at other parameters.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
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

ABSENT, EMPTIED = object(), object()
"""No attribute of that name; the same container without entries."""

Slot = tuple[nn.Module, str]
"""A module and the name of an attribute of it."""


@dataclass
class _Names:
    """A dictionary of a module, with what it is restored to.

    Attributes:
        current: the module's own dictionary, of attributes or of buffers.
        saved: name -> value that it is restored to.
        original: the same at first.
        ignored: names that are left alone.
    """

    current: dict[str, Any]
    saved: dict[str, Any]
    original: dict[str, Any]
    ignored: frozenset[str]

    def restore(self) -> None:
        current, saved = self.current, self.saved
        if len(current) == len(self.ignored) + len(saved) and all(
            current.get(name, ABSENT) is value for name, value in saved.items()
        ):
            return
        for name in [name for name in current if name not in saved and name not in self.ignored]:
            del current[name]
        current.update(saved)


class _Entries:
    """A container, which stays the same object, with the entries that it is restored to."""

    def __init__(self, container: Any, entries: Any) -> None:
        self.container = container
        self.saved = self.original = entries

    def restore(self) -> None:
        container, entries = self.container, self.saved
        if len(container) == len(entries):
            if isinstance(container, dict):
                if all(container.get(name, ABSENT) is value for name, value in entries.items()):
                    return
            elif isinstance(container, set):
                if container == entries:
                    return
            elif all(one is other for one, other in zip(container, entries, strict=True)):
                return
        container.clear()
        container.extend(entries) if isinstance(container, list | deque) else container.update(entries)


class PlainAttributes:
    """The attributes of some modules, and which tensors their buffers are, as they are now.

    Containers and tensors in attributes are saved, too. Tensors that share memory with parameters or buffers are left
    alone.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        modules = [module for module in modules if not type(module).__module__.startswith(_LEFT_ALONE)]
        held = (*(p for m in modules for p in m.parameters(False)), *(b for m in modules for b in m.buffers(False)))
        self._model = {id(tensor) for tensor in held}
        self._memory = {storage_of(tensor) for tensor in held}
        self._names: dict[tuple[int, bool], _Names] = {}  # by the module, and whether these are its buffers
        self._containers: dict[int, _Entries] = {}
        self._tensors: list[SavedTensor] = []
        self._seen: set[int] = set()
        for module in modules:
            own = {name: value for name, value in vars(module).items() if name not in OF_TORCH}
            self._names[id(module), False] = _Names(vars(module), own, dict(own), OF_TORCH)
            buffers = module._buffers
            self._names[id(module), True] = _Names(buffers, dict(buffers), dict(buffers), frozenset())
            for value in own.values():
                self._save(value, _package(module))
        self._memoized = _memoized({type(module) for module in modules})
        self._found = {
            (module, name): found
            for module in modules
            for name, value in (*self._names[id(module), False].saved.items(), *_unsaved_buffers(module))
            if (found := list(self._tensors_in(value)))
        }

    def restore(self) -> None:
        """Set all attributes to what they were, or to what :meth:`set_to` replaced it by."""
        for names in self._names.values():
            names.restore()
        for entries in self._containers.values():
            entries.restore()
        for tensor in self._tensors:
            tensor.restore()
        for function in self._memoized:
            function.cache_clear()

    def restore_original(self) -> None:
        """Set all attributes to what they were at first."""
        for names in self._names.values():
            names.saved = dict(names.original)
        for entries in self._containers.values():
            entries.saved = entries.original
        self.restore()

    def set_to(self, slot: Slot, value: Any) -> None:
        """From now on the attribute is restored to ``value``: :data:`ABSENT`, or :data:`EMPTIED`, are values, too."""
        names, name = self._of(slot), slot[1]
        entries = self._containers.get(id(names.original[name]))
        if entries is not None:
            entries.saved = type(entries.original)() if value is EMPTIED else entries.original
        names.saved[name] = names.original[name] if value is EMPTIED else value
        if value is ABSENT:
            del names.saved[name]

    def value_of(self, slot: Slot) -> Any:
        """The value that the attribute is restored to."""
        return self._of(slot).saved.get(slot[1], ABSENT)

    @property
    def slots(self) -> Mapping[Slot, list[Tensor]]:
        """The attributes, and buffers that are in no ``state_dict``, with the floating-point tensors that they hold."""
        return self._found

    def now(self, slot: Slot) -> list[Tensor]:
        """The floating-point tensors that the attribute holds now."""
        return list(self._tensors_in(self._of(slot).current.get(slot[1])))

    def written(self, slot: Slot) -> bool:
        """Whether the tensors that were saved have other values now."""
        return any(each.changed for each in self._tensors if any(each.tensor is held for held in self._found[slot]))

    def _of(self, slot: Slot) -> _Names:
        module, name = slot
        return self._names[id(module), name in self._names[id(module), True].original]

    def _tensors_in(self, value: Any) -> Iterator[Tensor]:
        waiting, seen = [value], set[int]()
        while waiting:
            each = waiting.pop()
            if id(each) in seen:
                continue
            seen.add(id(each))
            if isinstance(each, Tensor):
                of_the_model = storage_of(each) in self._memory and (
                    each is not value or isinstance(each, nn.Parameter)
                )
                if each.is_floating_point() and each.numel() and not of_the_model:
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
                if type(each) is Tensor and storage_of(each) not in self._memory:
                    self._tensors.append(SavedTensor(each))
                continue
            entries = _entries(each, package)
            container = (
                each if isinstance(each, dict | list | set | deque) else vars(each) if _is_object(each) else None
            )
            if container is not None and len(container) <= LARGEST and (entries or container is each):
                self._containers[id(container)] = _Entries(container, container.copy())
            waiting += entries


def _unsaved_buffers(module: nn.Module) -> list[tuple[str, Any]]:
    """The buffers that are in no ``state_dict``."""
    return [(name, value) for name, value in module._buffers.items() if name in module._non_persistent_buffers_set]


def _is_object(value: Any) -> bool:
    """Whether a value has attributes that may be followed."""
    return not isinstance(value, type | ModuleType | tuple) and not callable(value) and hasattr(value, "__dict__")


def _package(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _entries(value: Any, package: str | None) -> list[Any]:
    """The entries of a container, or the attributes of an object whose class is of the same package."""
    if isinstance(value, dict):
        return list(value.values()) if len(value) <= LARGEST else []
    if isinstance(value, list | tuple | set | deque):
        return list(value) if len(value) <= LARGEST else []
    followed = _is_object(value) and package in (None, _package(value))
    return list(vars(value).values()) if followed else []


def _memoized(kinds: set[type]) -> list[Any]:
    """What ``functools.cache`` or ``lru_cache`` wraps: methods of these classes, and functions of their files."""
    classes = {
        each for kind in kinds for each in kind.__mro__ if not each.__module__.startswith(("torch.", "builtins"))
    }
    files = {each.__module__ for each in classes}
    places: list[Any] = [*classes, *(sys.modules[name] for name in files if name in sys.modules)]
    found = [value for place in places for value in vars(place).values() if hasattr(value, "cache_clear")]
    return [value for value in found if getattr(value, "__module__", None) in files]


def computed_on_access(slot: Slot) -> bool:
    """Whether the attribute is a ``functools.cached_property``."""
    return isinstance(getattr(type(slot[0]), slot[1], None), cached_property)


_LEFT_ALONE = ("torch.nn.parallel", "torch.distributed", "torch._dynamo", "torch.jit", "torch.fx", "teleport.")
"""Their modules keep the state of torch's own machinery, and the factors of teleported activations."""
