"""A teleported model in a file: its tensors, the factors of its activations and the change of basis."""

from __future__ import annotations

import os
import warnings

from torch import nn

from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.loading import load_state
from teleport._files import tensor_file
from teleport._files.state import SavedModel
from teleport._files.tensor_file import InvalidFile


def save(model: nn.Module, path: str | os.PathLike[str], change: BasisChange | None = None) -> None:
    """Write a teleported model with a checksum, for :func:`load`; the file appears whole or not at all.

    The order of the arguments is that of ``torch.save``. The former order, ``save(path, model)``, still works, with a
    ``DeprecationWarning``.

    Args:
        model: the teleported model, in either form (``report.model``).
        path: of the file.
        change: of its basis, to be able to undo it (``report.change``).

    Raises:
        TypeError: there is no module, or no path, among the first two arguments.
        OSError: the file cannot be written; one that was there stays as it was.
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
    tensor_file.write(path, {"model": model.state_dict(), "change": change.state_dict() if change else None})


def load(path: str | os.PathLike[str], model: nn.Module) -> tuple[nn.Module, BasisChange | None]:
    """The model and the change of basis that :func:`save` wrote; only plain values and tensors are read.

    The whole file is checked before the model is touched. A file of an earlier version is read, too; if it has nothing
    by which damage would show, there is a ``UserWarning``.

    Args:
        path: of the file.
        model: a model of the same structure; its parameters are overwritten. After an exception they are as before.

    Returns:
        ``model``, or its teleported form if that was saved; and the change of basis, to continue from or to undo.

    Raises:
        ValueError: the file is damaged, was not written by :func:`save`, or is of another model.
        OSError: there is no such file, or it cannot be read.
    """
    before = SavedModel(model)
    try:
        return _load(path, model, before)
    except BaseException:
        before.restore()  # also after an interrupt at the very end: without its form the model would be lost
        raise


def _load(path: str | os.PathLike[str], model: nn.Module, before: SavedModel) -> tuple[nn.Module, BasisChange | None]:
    name = os.fspath(path)
    try:
        content, checked = tensor_file.read(path)
        if not isinstance(content, dict) or set(content) != {"model", "change"}:
            raise InvalidFile("is no file of teleport.save")
        change = content["change"]
        if change is not None:
            change = BasisChange.from_state_dict(change, model)
        loaded, _ = load_state(model, content["model"], before=before)
    except InvalidFile as error:
        raise InvalidFile(f"{name} {error}") from error
    except ValueError as error:
        raise InvalidFile(f"{name} does not fit the model: {error}") from error
    if not checked:
        warnings.warn(f"{name} has no checksum, so that damage to it would not show", UserWarning, stacklevel=3)
    return loaded, change
