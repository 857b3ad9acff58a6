"""Freed memory handed back to the operating system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def hand_back() -> None:
    """Hand freed memory of the process back, where the C library is glibc; it keeps most of it otherwise.

    Buffers of less than 32 MiB come from its heap, whose freed parts stay with the process, and in pieces between
    longer-lived buffers they do not serve the next large one: half of the peak of an event on a small transformer.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library
        return None
    return found
