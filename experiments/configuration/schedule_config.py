"""The keys that every teleport method has, typed: when it happens and on how much data. Importing it is cheap."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING, SI


@dataclass
class TeleportConfig:
    """Keys that every method has, and all that ``name: none`` has."""

    name: str = MISSING
    epochs: list[int] = field(default_factory=list)  # teleport before these epochs (from 0)
    at_steps: list[int] = field(default_factory=list)  # and before these optimizer steps (from 0)
    warmup_steps: int = 0  # the earliest optimizer step; an event due before is moved to it
    batches: int = SI("${data.extents.${scale}.teleport_batches}")  # B
    samples: int = 32  # n, samples per batch
    optimizer_state: str = "keep"  # keep | reset | transported
    label: str | None = None  # in names of folders; None: as the option is called; never part of a run's hash
