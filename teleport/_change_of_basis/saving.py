"""A teleported model in a file: its tensors, the factors of its activations and the change of basis."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from torch import nn

from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.teleported import like_state


def save(model: nn.Module, path: str | os.PathLike[str], change: BasisChange | None = None) -> None:
    """Write a teleported model, for :func:`load`.

    The order of the arguments is that of ``torch.save``. The former order, ``save(path, model)``, still works, with a
    ``DeprecationWarning``.

    Args:
        model: the teleported model, in either form (``report.model``).
        path: of the file.
        change: of its basis, to be able to undo it (``report.change``).

    Raises:
        TypeError: there is no module, or no path, among the first two arguments.
    """
    if isinstance(path, nn.Module) and isinstance(model, str | os.PathLike):
        warnings.warn(
            "teleport.save(path, model) is deprecated; write teleport.save(model, path), as in torch.save",
            DeprecationWarning,
            stacklevel=2,
        )
        model, path = path, model
    if not isinstance(model, nn.Module) or not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"teleport.save takes a module and a path, got {type(model).__name__} and {type(path).__name__}"
        )
    torch.save({"model": model.state_dict(), "change": change.state_dict() if change else None}, path)


def load(path: str | os.PathLike[str], model: nn.Module) -> tuple[nn.Module, BasisChange | None]:
    """The model and the change of basis that :func:`save` wrote; only plain values and tensors are read.

    Args:
        path: of the file.
        model: a model of the same structure; its parameters are overwritten.

    Returns:
        ``model``, or its teleported form if that was saved; and the change of basis, to continue from or to undo.

    Raises:
        ValueError: the file was not written by :func:`save`.
    """
    content: Any = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or set(content) != {"model", "change"}:
        raise ValueError(f"{os.fspath(path)} is no file of teleport.save")
    loaded = like_state(model, content["model"])
    loaded.load_state_dict(content["model"])
    change = content["change"]
    return loaded, None if change is None else BasisChange.from_state_dict(change, loaded)
