"""A teleport that is looked at and undone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from teleport._engine.contract import LossFn, Teleporter
from teleport._engine.report import TeleportReport
from teleport._engine.transaction import Snapshot


def preview(
    method: Teleporter, model: nn.Module, batches: Iterable[Any], loss_fn: LossFn, **options: Any
) -> TeleportReport:
    """Apply ``method`` to ``model``, report what it does, and undo it.

    Parameters are bit-identical afterwards, and so is the method's own ``generator``, if it has one: the same call
    without ``preview`` makes the same move.

    Args:
        method: a teleport method.
        model, batches, loss_fn: as of the method.
        options: further arguments of the call.

    Returns:
        the report of the move that was undone; its ``model``, ``group`` and ``change`` describe that move.

    Raises:
        ValueError: as the method.
    """
    snapshot = Snapshot(model.parameters())
    form = model.get_extra_state() if _has_extra_state(model) else None
    own = getattr(method, "generator", None)
    state = own.get_state() if isinstance(own, torch.Generator) else None
    try:
        return method(model, batches, loss_fn, **options)
    finally:
        snapshot.restore()
        if form is not None:
            model.set_extra_state(form)
        if isinstance(own, torch.Generator) and state is not None:
            own.set_state(state)


def _has_extra_state(model: nn.Module) -> bool:
    """Whether the model keeps a state beside parameters and buffers, as a teleported one does."""
    return type(model).get_extra_state is not nn.Module.get_extra_state
