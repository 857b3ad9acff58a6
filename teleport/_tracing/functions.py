"""Names of torch functions, and torch functions by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import resolve_name


def called(func: Callable[..., Any]) -> str:
    """A torch function's name."""
    return str(resolve_name(func) or getattr(func, "__qualname__", func))


def function_name(function: Callable[..., Any]) -> str:
    """The name under which :func:`torch_function` finds it.

    Raises:
        ValueError: ``function`` is not one of torch's.
    """
    name = resolve_name(function)
    if name is None or torch_function(name) != function:
        raise ValueError(f"{function} has no name in torch, so a teleported model that calls it cannot be saved")
    return str(name)


@functools.cache
def torch_function(name: str) -> Callable[..., Any]:
    """The torch function of this name, and no other object that the name resolves to.

    Raises:
        ValueError: there is no such function.
    """
    found: Any = torch
    for part in name.removeprefix("torch.").split("."):
        found = getattr(found, part, None)
    if not name.startswith("torch.") or not callable(found) or resolve_name(found) is None:
        raise ValueError(f"torch has no function named {name!r} that could be teleported")
    return found  # type: ignore[no-any-return]
