"""The loss of a batch in a training step: as the model computes it, or faster within rounding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from experiments.configuration.config import TrainingConfig

LossOf = Callable[[Tensor, Tensor], Tensor]
"""From a batch's outputs (or inputs) and targets to its mean loss, a scalar tensor."""


def training_loss(model: nn.Module, loss: LossOf, settings: TrainingConfig, device: torch.device) -> LossOf:
    """The loss of a batch (inputs, targets) in training steps; evaluations and teleports use the plain model.

    Args:
        model: shares its parameters with the returned function.
        loss: the task's, of outputs and targets.
        settings: ``compile`` uses ``torch.compile``, ``precision`` bfloat16 autocast with float32 parameters, and
            ``channels_last`` passes images [b, c, h, w] with the channels innermost.
        device: of the model.
    """
    compute = torch.compile(model) if settings.compile else model
    half, channels_last = settings.precision == "bfloat16", settings.channels_last

    def loss_of(inputs: Tensor, targets: Tensor) -> Tensor:
        if channels_last and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        if not half:
            return loss(compute(inputs), targets)
        with torch.autocast(device.type, torch.bfloat16):
            outputs = compute(inputs)
        return loss(outputs.float(), targets)

    return loss_of
