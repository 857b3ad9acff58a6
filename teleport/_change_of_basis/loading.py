"""A ``state_dict`` from a file into a model, in its teleported form if the state is of one."""

from __future__ import annotations

from typing import Any

from torch import nn

from teleport._change_of_basis.teleported import like_state
from teleport._files import state as states
from teleport._files.tensor_file import InvalidFile


def load_state(
    model: nn.Module, value: Any, *, finite: bool = False, before: states.SavedModel | None = None
) -> tuple[nn.Module, str]:
    """Load a state into a model: all of it, or nothing with the model as it was.

    Names that differ from the model's by the prefix of a wrapper alone (``module.``, ``_orig_mod.``, ``model.``) fit.

    Args:
        model: the model; its tensors are overwritten.
        value: what a file holds.
        finite: whether values that are not finite are refused where those of the model are finite.
        before: of the model, if the caller has it, to restore after an exception.

    Returns:
        The model, or its teleported form if the state is of one; and a remark on the names, empty if they are equal.

    Raises:
        InvalidFile: the value is no state dict, or one of another model.
    """
    loaded, state, remark = _by_names(model, states.state_of(value))
    states.check_tensors(loaded, state, finite=finite)
    try:
        states.load_whole(loaded, state, before)
    except InvalidFile:
        raise
    except Exception as error:  # of a module that loads its state with code of its own
        raise InvalidFile(f"does not fit the model: {' '.join(str(error).split())}") from error
    return loaded, remark


def _by_names(model: nn.Module, state: dict[str, Any]) -> tuple[nn.Module, dict[str, Any], str]:
    """The model in the form of the state, the state by the model's names, and a remark on their difference."""
    for removed, form in states.forms(state):
        loaded = like_state(model, form)
        if form.keys() & loaded.state_dict().keys():
            return loaded, form, f"the prefix '{removed}' of its names is left out" if removed else ""
    for prefix, own in states.forms(model.state_dict()):
        if own.keys() & state.keys():
            return model, states.with_prefix(state, prefix), f"the model's names have the prefix '{prefix}'"
    return like_state(model, state), state, ""
