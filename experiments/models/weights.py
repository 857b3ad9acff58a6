"""Initial weights of a model from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments import files
from experiments.errors import UserError
from teleport._change_of_basis.teleported import like_state


def with_weights(model: nn.Module, path: Path) -> nn.Module:
    """``model`` with the parameters and buffers of a state dict.

    Args:
        model: the model, on the CPU; its tensors are overwritten.
        path: a file of ``torch.save(model.state_dict(), path)``, such as the ``model.pt`` of a run. Only tensors and
            plain values are read.

    Returns:
        The model, or a wrapper of it if the file is of a model with teleported activations.

    Raises:
        UserError: the file is missing, is not a state dict, or is of another model.
    """
    state = _read(path)
    model = like_state(model, state)
    for key, value in model.state_dict().items():
        if isinstance(value, Tensor) and key in state and state[key].shape != value.shape:
            raise UserError(
                f"model.weights={path} has '{key}' of shape {list(state[key].shape)}, where the model for these data "
                f"has {list(value.shape)}"
            )
    # Keys are not compared directly, since a module may accept older files that lack some.
    missing, unknown = model.load_state_dict(state, strict=False)
    if missing:
        raise UserError(f"model.weights={path} lacks '{missing[0]}'{_and_more(missing)}, which the model has")
    if unknown:
        raise UserError(f"model.weights={path} has '{unknown[0]}'{_and_more(unknown)}, which the model lacks")
    return model


def _read(path: Path) -> Mapping[str, Any]:
    """The state dict in a file, on the CPU."""
    takes = "it takes a file of torch.save(model.state_dict(), file)"
    if not path.is_file():
        raise UserError(f"model.weights={path} is not there; {takes}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except files.DAMAGED as error:
        raise UserError(f"model.weights={path} is damaged or holds more than tensors; {takes}") from error
    if not isinstance(state, Mapping) or not all(_is_entry(key, value) for key, value in state.items()):
        raise UserError(f"model.weights={path} holds no state dict; {takes}")
    return state


def _is_entry(key: Any, value: Any) -> bool:
    """Whether the pair is valid in a state dict: a tensor, or the extra state of a module."""
    return isinstance(value, Tensor) or str(key).endswith("_extra_state")


def _and_more(keys: list[str]) -> str:
    return f" and {len(keys) - 1} more" if len(keys) > 1 else ""
