"""Names of torch functions, and torch functions by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import resolve_name


def called(func: Callable[..., Any]) -> str:
    """A torch function's public qualified name: of ``torch._grouped_mm`` that is ``torch.nn.functional.grouped_mm``."""
    if name := resolve_name(func):
        return str(name)
    name, module = getattr(func, "__name__", ""), str(getattr(func, "__module__", "") or "")
    if str(getattr(func, "__qualname__", "")).startswith("_VariableFunctions"):
        module = "torch"  # some of that class have none
    public = name.strip("_")
    if module.partition(".")[0] != "torch" or not name:
        return str(getattr(func, "__qualname__", func))
    for place, where in ((torch.nn.functional, "torch.nn.functional"), (torch, "torch")):
        for each in (public, name):
            if callable(getattr(place, each, None)):
                return f"{where}.{each}"
    return f"{module}.{name}"


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
