"""A stopwatch that waits for the accelerator."""

from __future__ import annotations

import time

import torch


class Clock:
    """Sums up the seconds between ``start`` and ``stop``; on CUDA both wait for the device's queue."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started: float | None = None

    def start(self) -> None:
        """Go on, unless it is going already."""
        if self._started is None:
            self._synchronize()
            self._started = time.perf_counter()

    def stop(self) -> float:
        """Pause; the seconds since the start, 0 where it was not going."""
        if self._started is None:
            return 0.0
        self._synchronize()
        seconds = time.perf_counter() - self._started
        self._started = None
        return seconds

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
