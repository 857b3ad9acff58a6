"""A stopwatch that waits for the accelerator, or counts the processor's seconds alone."""

from __future__ import annotations

import time

import torch

from experiments.run.launched import place


def counts_processor(device: torch.device, compiled: bool = False) -> bool:
    """Whether the seconds of a run are those that its process spends on the processor.

    With one thread on the CPU they are those of an idle machine, whatever else runs beside it. With several threads
    they would be the sum over threads, and a compiler (``compiled``) works in processes of its own.
    """
    alone = place().size == 1  # processes of one run wait for each other
    return device.type == "cpu" and torch.get_num_threads() == 1 and not compiled and alone


class Clock:
    """The sum of the seconds between ``start`` and ``stop``; on an accelerator both wait for its queue.

    Args:
        device: whose queue is waited for.
        processor: count the seconds of the process on the processor, see :func:`counts_processor`; else those of a wall
            clock.
    """

    def __init__(self, device: torch.device, processor: bool = False) -> None:
        self._device = device
        self._now = time.process_time if processor else time.perf_counter
        self._started: float | None = None

    def start(self) -> None:
        """Start, unless it is running."""
        if self._started is None:
            self._synchronize()
            self._started = self._now()

    def stop(self) -> float:
        """Stop; the seconds since the start, 0 if it was not running."""
        if self._started is None:
            return 0.0
        self._synchronize()
        seconds = self._now() - self._started
        self._started = None
        return seconds

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
