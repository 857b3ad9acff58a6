"""What a network with joined channels is, for trials of what a quiver leaves free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Joined:
    """A network, the shapes of its inputs, weights whose channels are all free, and such as carry 1 (in place)."""

    build: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    free: tuple[str, ...]
    pinned: tuple[str, ...] = ()

    def make(self) -> tuple[nn.Module, list[Tensor]]:
        torch.manual_seed(1)
        model = self.build().double().eval()
        for buffer in model.buffers():  # statistics that are not those of a new batch norm
            if buffer.is_floating_point():
                buffer.copy_(buffer + torch.rand_like(buffer))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model, [torch.randn(shape).double() for shape in self.shapes]
