"""A stopwatch that waits for the accelerator."""

from __future__ import annotations

import time

import torch


class Clock:
    """The sum of the seconds between ``start`` and ``stop``; on an accelerator both wait for its queue."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started: float | None = None

    def start(self) -> None:
        """Start, unless it is running."""
        if self._started is None:
            self._synchronize()
            self._started = time.perf_counter()

    def stop(self) -> float:
        """Stop; the seconds since the start, 0 if it was not running."""
        if self._started is None:
            return 0.0
        self._synchronize()
        seconds = time.perf_counter() - self._started
        self._started = None
        return seconds

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
