"""A teleport that is looked at and undone."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from teleport._engine.contract import LossFn, Teleporter
from teleport._engine.report import TeleportReport
from teleport._engine.transaction import ModelSnapshot
from teleport._tracing.preconditions import check_model
from teleport._tracing.undisturbed import ModelState
from teleport._undone import always_undone


def preview(
    method: Teleporter, model: nn.Module, batches: Iterable[Any], loss_fn: LossFn, **options: Any
) -> TeleportReport:
    """Apply ``method`` to ``model``, report what it does, and undo it.

    Parameters are bit-identical afterwards, and so are torch's global random state, the given ``generator`` and the
    method's own, if it has one: the same call without ``preview`` makes the same move. Buffers, modes and ``.grad`` are
    restored by the method. An iterator of batches is used up. Of a model that several processes move together, each of
    them calls this.

    Args:
        method: a teleport method.
        model, batches, loss_fn: as of the method.
        options: further arguments of the call, such as ``generator`` or ``callback``.

    Returns:
        the report of the move that was undone; its ``model``, ``group`` and ``change`` describe that move.

    Raises:
        ValueError: as the method.
    """
    check_model(model, sharded=True)
    snapshot = ModelSnapshot(model)
    extra = [
        (module, copy.deepcopy(module.get_extra_state())) for module in model.modules() if _has_extra_state(module)
    ]
    sources = [options.get("generator"), getattr(method, "generator", None)]
    states = [(source, source.get_state()) for source in sources if isinstance(source, torch.Generator)]
    model_state = ModelState(model)

    def undo() -> None:
        snapshot.restore()
        model_state.restore_after_error()
        for module, state in extra:
            module.set_extra_state(state)
        for source, state in states:
            source.set_state(state)

    return always_undone(lambda: method(model, batches, loss_fn, **options), undo)


def _has_extra_state(module: nn.Module) -> bool:
    """Whether the module keeps a state beside parameters and buffers, as a teleported model does."""
    return type(module).get_extra_state is not nn.Module.get_extra_state
