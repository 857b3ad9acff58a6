"""When to teleport."""

from __future__ import annotations

from collections.abc import Iterable

from teleport._arguments import check_whole


class Schedule:
    """The optimizer steps before which a teleport happens.

    Args:
        epochs: epochs (from 0) before whose first step a teleport happens.
        at_steps: optimizer steps (from 0) before which a teleport happens.
        warmup_steps: the earliest step; an event due before it is moved to it (Wu et al. 2025, section 4.2: CNNs take
            some steps before the first teleport). Events that meet at one step are one event.
        steps_per_epoch: optimizer steps an epoch.

    Raises:
        ValueError: a negative entry, or ``steps_per_epoch`` below 1.
    """

    def __init__(
        self,
        epochs: Iterable[int] = (),
        at_steps: Iterable[int] = (),
        warmup_steps: int = 0,
        steps_per_epoch: int = 1,
    ) -> None:
        epochs, at_steps = list(epochs), list(at_steps)
        check_whole(steps_per_epoch=steps_per_epoch)
        if steps_per_epoch < 1:
            raise ValueError(f"steps_per_epoch must be at least 1, got {steps_per_epoch}")
        for what, entries in (("epochs", epochs), ("at_steps", at_steps), ("warmup_steps", [warmup_steps])):
            for entry in entries:
                check_whole(**{what: entry})
        wanted = [epoch * steps_per_epoch for epoch in epochs] + at_steps
        self.steps = sorted({max(step, warmup_steps) for step in wanted})

    def event_before(self, step: int) -> int | None:
        """The number (from 0) of the event due before optimizer step ``step``, or ``None``."""
        return self.steps.index(step) if step in self.steps else None
