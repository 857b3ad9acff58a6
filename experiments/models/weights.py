"""Initial weights of a model from a file."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from experiments.errors import UserError
from teleport._change_of_basis.loading import load_state
from teleport._files import tensor_file
from teleport._files.tensor_file import InvalidFile

log = logging.getLogger(__name__)


def with_weights(model: nn.Module, path: Path) -> nn.Module:
    """``model`` with the parameters and buffers of a state dict.

    Args:
        model: the model, on the CPU; its tensors are overwritten, or stay as they are after an error.
        path: a file of ``torch.save(model.state_dict(), path)``, such as the ``model.pt`` of a run. Only tensors and
            plain values are read.

    Returns:
        The model, or a wrapper of it if the file is of a model with teleported activations.

    Raises:
        UserError: the file is missing, damaged, is not a state dict, has values that are not finite, or is of another
            model.
    """
    takes = "it takes a file of torch.save(model.state_dict(), file)"
    if not path.is_file():
        raise UserError(f"model.weights={path} is not there; {takes}")
    try:
        content, checked = tensor_file.read(path)
        loaded, remark = load_state(model, content, finite=True)
    except InvalidFile as error:
        raise UserError(f"model.weights={path} {error}; {takes}") from error
    except OSError as error:
        raise UserError(f"model.weights={path} cannot be read: {error.strerror or error}; {takes}") from error
    if remark:
        log.info("note: model.weights=%s: %s", path, remark)
    if not checked:
        log.info("note: model.weights=%s has no checksum, so that damage to it would not show", path)
    return loaded
