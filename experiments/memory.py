"""The memory of this machine: sizes that cannot fit are refused before anything is allocated."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from experiments.errors import UserError

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files with the limit of a container, of both versions of control groups."""

EXHAUSTED = (
    *("can't allocate memory", "not enough memory", "out of memory", "invalid buffer size"),
    *("storage size calculation overflowed", "integer multiplication overflow"),
)
"""Parts of torch's messages for sizes that no memory holds, in lower case."""


def total(device: torch.device) -> int:
    """Bytes of memory that ``device`` has: of an accelerator, or of this machine or container."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or the word max
            size = min(size, int(Path(limit).read_text()))
    return size


def require(size: float, what: str, device: torch.device | None = None) -> None:
    """Refuse ``what`` if it takes more bytes than there are.

    Raises:
        UserError: ``size`` is more than the memory of ``device`` (the CPU's unless given).
    """
    device = device or torch.device("cpu")
    there = total(device)
    if size > there:
        where = "this machine" if device.type == "cpu" else f"the device {device}"
        raise UserError(f"{what} would take {in_words(size)}, and {where} has {in_words(there)} of memory")


def in_words(size: float) -> str:
    """A number of bytes with its unit, as ``3.2 GB``."""
    units = ["bytes", "kB", "MB", "GB", "TB", "PB", "EB"]
    power = 0
    while size >= 1000 and power < len(units) - 1:
        size, power = size / 1000, power + 1
    return f"{size:.3g} {units[power]}"


@contextlib.contextmanager
def told_if_exhausted(what: str, advice: str) -> Iterator[None]:
    """Raise a ``UserError`` if memory that ``what`` asks for cannot be allocated.

    Raises:
        UserError: it cannot; other errors pass.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        message = " ".join(str(error).split())
        if isinstance(error, RuntimeError) and not any(part in message.lower() for part in EXHAUSTED):
            raise
        raise UserError(f"{what} does not fit into memory ({message.rstrip('.')[:200]}); {advice}") from error
