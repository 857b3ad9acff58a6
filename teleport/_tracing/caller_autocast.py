"""The ``torch.autocast`` blocks around a call: the model runs in them, the arithmetic of a teleport does not.

Inside such a block products of weights, gradients and subspaces would be rounded to half precision, and operations that
have no such kernel fail.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

import torch

from teleport._tracing.accelerator import current_accelerator

Result = TypeVar("Result")


class CallerAutocast:
    """The autocast of each kind of device as it is now."""

    def __init__(self) -> None:
        accelerator = current_accelerator()
        kinds = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
        self._cached = torch.is_autocast_cache_enabled()
        self._kinds = [
            (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
            for kind in kinds
            if torch.amp.is_autocast_available(kind)
        ]

    def off(self) -> None:
        """Leave it; :meth:`restore` comes after."""
        for kind, _, _ in self._kinds:
            torch.set_autocast_enabled(kind, False)

    def restore(self) -> None:
        """Set it back."""
        for kind, dtype, enabled in self._kinds:
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)

    def run(self, call: Callable[[], Result]) -> Result:
        """The result of ``call`` in it."""
        with ExitStack() as stack:
            for kind, dtype, enabled in self._kinds:
                if enabled:
                    stack.enter_context(torch.autocast(kind, dtype, True, self._cached))
            return call()
