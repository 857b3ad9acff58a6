"""Teleports in a loop under Accelerate.

from teleport.integrations.accelerate import Teleports
teleports = Teleports(NullSpace(), loss_fn, epochs=[0, 1])
for epoch in range(10):
    teleports.before_epoch(epoch, model, loader, optimizer)  # what Accelerator.prepare returned
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from teleport import LossFn, Teleporter, TeleportReport
from teleport.integrations._events import Events


class Teleports:
    """Teleports before the first step of some epochs, on the first batches of a prepared loader.

    With several processes all teleport together, each on its own batches. With ``mixed_precision`` an event has the
    precision of the parameters, and the training goes on as prepared.

    Args:
        teleporter: the method.
        loss_fn: ``loss_fn(model, batch)``.
        epochs: from 0, before whose first step a teleport happens.
        batches: per event, and per process if there are several.
        optimizer_state: ``"keep"``, ``"reset"``, or ``"transported"`` for methods that multiply parameters by factors.

    Attributes:
        reports: the :class:`teleport.TeleportReport` of each event so far, by epoch.

    Raises:
        ValueError: an epoch below 0, no batch, or an unknown ``optimizer_state``.
        TypeError: an epoch or ``batches`` is no whole number.
    """

    def __init__(
        self,
        teleporter: Teleporter,
        loss_fn: LossFn,
        epochs: Iterable[int] = (0,),
        batches: int = 1,
        optimizer_state: str = "keep",
    ) -> None:
        self.events = Events(teleporter, loss_fn, epochs, batches, optimizer_state)
        self.reports = self.events.reports

    def before_epoch(
        self, epoch: int, model: nn.Module, loader: Iterable[Any], optimizer: torch.optim.Optimizer
    ) -> TeleportReport | None:
        """The event before ``epoch``, if one is due; its report. Called by all processes."""
        return self.events.before(epoch, model, loader, [optimizer])
