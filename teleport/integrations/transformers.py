"""A callback for the Trainer of transformers.

from teleport.integrations.transformers import TeleportCallback
Trainer(model, arguments, train_dataset=data, callbacks=[TeleportCallback(NullSpace(), epochs=[0, 1])])
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from teleport import LossFn, Teleporter
from teleport.integrations._events import Events

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(
        "teleport.integrations.transformers needs the package transformers: pip install transformers accelerate"
    ) from error


def own_loss(model: nn.Module, batch: Any) -> Tensor:
    """The loss that a model of transformers returns for a batch with labels."""
    loss: Tensor = model(**batch).loss
    return loss


class TeleportCallback(TrainerCallback):
    """Teleport before the first step of some epochs, on the first batches of the training data.

    With several processes all teleport together, each on its own batches. With ``bf16`` or ``fp16`` an event has the
    precision of the parameters, and the training goes on in mixed precision. torch's fused attention has no second
    derivative: build the model with ``attn_implementation="eager"``.

    Args:
        teleporter: the method.
        epochs: from 0, before whose first step a teleport happens.
        batches: per event, and per process if there are several.
        optimizer_state: ``"keep"``, ``"reset"``, or ``"transported"`` for methods that multiply parameters by factors.
        loss_fn: ``loss_fn(model, batch)``; the loss that the model returns unless it is given.

    Attributes:
        reports: the :class:`teleport.TeleportReport` of each event so far, by epoch.

    Raises:
        ValueError: an epoch below 0, no batch, or an unknown ``optimizer_state``.
        TypeError: an epoch or ``batches`` is no whole number.
    """

    def __init__(
        self,
        teleporter: Teleporter,
        epochs: Iterable[int] = (0,),
        batches: int = 1,
        optimizer_state: str = "keep",
        loss_fn: LossFn = own_loss,
    ) -> None:
        self.events = Events(teleporter, loss_fn, epochs, batches, optimizer_state)
        self.reports = self.events.reports

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The event of this epoch, if one is due; none within an epoch that a checkpoint continues."""
        epoch = round(state.epoch or 0)
        if abs((state.epoch or 0) - epoch) < 1e-6:
            self.events.before(epoch, kwargs["model"], kwargs["train_dataloader"], [kwargs["optimizer"]])
