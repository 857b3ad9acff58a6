"""A callback for the Trainer of Lightning.

from teleport.integrations.lightning import TeleportCallback
Trainer(callbacks=[TeleportCallback(NullSpace(), loss_fn, epochs=[0, 1])])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from teleport import Teleporter
from teleport.integrations._events import Events

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    try:
        from pytorch_lightning import Callback, LightningModule, Trainer
    except ImportError as error:
        raise ImportError("teleport.integrations.lightning needs Lightning: pip install lightning") from error


class TeleportCallback(Callback):
    """Teleport before the first step of some epochs, on the first batches of the training data.

    With several processes (strategy ``ddp``) all teleport together, each on its own batches. Mixed precision goes on
    in the training; an event has the precision of the parameters.

    Args:
        teleporter: the method.
        loss_fn: ``loss_fn(module, batch)``, without calls of ``self.log``, which Lightning allows in its hooks alone.
        epochs: from 0, before whose first step a teleport happens.
        batches: per event, and per process if there are several.
        optimizer_state: ``"keep"``, ``"reset"``, or ``"transported"`` for methods that multiply parameters by factors.

    Attributes:
        reports: the :class:`teleport.TeleportReport` of each event so far, by epoch.

    Raises:
        ValueError: an epoch below 0, no batch, or an unknown ``optimizer_state``.
        TypeError: an epoch or ``batches`` is no whole number; at an event, the training has several loaders.
    """

    def __init__(
        self,
        teleporter: Teleporter,
        loss_fn: Callable[[Any, Any], Tensor],
        epochs: Iterable[int] = (0,),
        batches: int = 1,
        optimizer_state: str = "keep",
    ) -> None:
        self.events = Events(teleporter, loss_fn, epochs, batches, optimizer_state)
        self.reports = self.events.reports

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The event of this epoch, if one is due."""
        if trainer.current_epoch in self.events.epochs:
            loader: Iterable[Any] = trainer.train_dataloader
            if isinstance(loader, list | tuple | dict):
                raise TypeError(f"TeleportCallback takes batches of one loader, and this training has {len(loader)}")
            move = trainer.strategy.batch_to_device
            self.events.before(trainer.current_epoch, pl_module, loader, trainer.optimizers, move)
