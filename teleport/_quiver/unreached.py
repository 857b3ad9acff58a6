"""Which channels may be read by parts of a model that no evaluation reached: experts, branches by length, skipped
layers.

Code that did not run cannot be traced. Its reach is bounded by scope: a tensor that a module makes and does not return
is known to the code of that module and of the modules that this code calls, and to no other code. A parameter that no
evaluation read belongs to a module. The code of this module, of the modules that contain it and of those that it
contains may use the parameter in a call that did not happen, so the channels of every tensor in reach of that code must
stay.

A tensor that is kept in an attribute of a module, or that a hook hands on, escapes this bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from teleport._tracing.outputs import tensors_returned


class Scopes:
    """The modules whose code runs, and the indices of the tensors that the code of each can read.

    Args:
        name_of: the name of a parameter, which tells the path of its module; ``None`` if it is not of the model.
        indices_of: the scale indices of a tensor, empty if it carries no factor.
    """

    def __init__(self, name_of: Callable[[Tensor], str | None], indices_of: Callable[[Tensor], list[Tensor]]) -> None:
        self._name_of = name_of
        self._indices_of = indices_of
        self._stack: list[str | None] = []
        self._paths: dict[nn.Module, str | None] = {}
        self._visible: dict[str, list[Tensor]] = {}  # path of a module -> indices of the tensors in its scope

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow the calls of modules."""
        hooks = [
            register_module_forward_pre_hook(lambda module, _: self._stack.append(self._path(module))),
            register_module_forward_hook(lambda module, _, result: self._leave(result), always_call=True),
        ]
        try:
            yield
        finally:
            self._stack.clear()
            for hook in hooks:
                hook.remove()

    def add(self, indices: Tensor) -> None:
        """A tensor with these indices was made in the scope of the code that runs."""
        self._visible.setdefault(self._scope(), []).append(indices)

    def in_reach_of(self, names: Iterable[str]) -> Iterator[tuple[str, list[Tensor]]]:
        """Per parameter that no evaluation read: the indices of all tensors that code with it in reach can read."""
        for name in names:
            owner = name.rpartition(".")[0]
            yield name, [indices for path, held in self._visible.items() if _related(path, owner) for indices in held]

    def _leave(self, result: Any) -> None:
        """The module that runs returns: its caller gets what it returns."""
        if self._stack:
            self._stack.pop()
        with torch._C.DisableTorchFunction():  # what is asked here is no part of the evaluation
            for tensor in tensors_returned(result):
                for indices in self._indices_of(tensor):
                    self.add(indices)

    def _scope(self) -> str:
        """The path of the innermost module that has parameters, "" outside of all."""
        return next((path for path in reversed(self._stack) if path is not None), "")

    def _path(self, module: nn.Module) -> str | None:
        """The path of the module in the model, by the first parameter in it; ``None`` if it has none of the model's."""
        if self._paths.get(module) is None:  # shards are known by name once the first ones were gathered
            inside = module.named_parameters()
            found = ((name, self._name_of(held) or "") for name, held in inside)
            self._paths[module] = next(
                (whole.removesuffix(name).rstrip(".") for name, whole in found if whole.endswith(name)), None
            )
        return self._paths[module]


def _related(path: str, other: str) -> bool:
    """Whether one of two modules is the other or contains it."""
    return path == other or not path or not other or path.startswith(f"{other}.") or other.startswith(f"{path}.")
