"""The place that ``torchrun`` gives this process, read before torch is imported."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """One of ``size`` processes; ``local`` is its number on its machine."""

    rank: int = 0
    local: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process evaluates, writes and logs."""
        return self.rank == 0


def place() -> Place:
    """The place of this process; the only one without ``torchrun``."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Place()
    return Place(*(int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")))
