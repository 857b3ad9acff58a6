"""torch's global random state, of the CPU and of the accelerators (CUDA, MPS, XPU) that hold some tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from teleport._tracing.accelerator import current_accelerator


class RandomState:
    """The random state as it is now.

    Args:
        tensors: those on whose accelerators random numbers may be drawn, besides the CPU.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        accelerator = current_accelerator()
        devices = {tensor.device for tensor in tensors}
        self._cpu = torch.random.get_rng_state()
        self._accelerators = [
            (device, torch.get_device_module(device).get_rng_state(device))
            for device in devices
            if accelerator is not None and device.type == accelerator.type
        ]

    def restore(self) -> None:
        """Return to this state."""
        torch.random.set_rng_state(self._cpu)
        for device, state in self._accelerators:
            torch.get_device_module(device).set_rng_state(state, device)
