"""Caps on the gradient norm."""

from __future__ import annotations

import math

from torch import nn

from teleport._engine.batch_loss import Point
from teleport._engine.event import Event, Halves


class Caps:
    """The cap on the gradient norm: absolute, relative to the mean norm before the event, or the smaller of both.

    Args:
        cap: on the gradient norm, ``None`` for none.
        relative_cap: a factor on the mean gradient norm, ``None`` for none; the event must have been started with it.
        event: before its first move.
    """

    def __init__(self, cap: float | None, relative_cap: float | None, event: Event) -> None:
        self.absolute = math.inf if cap is None else cap
        self.factor = relative_cap
        self._event = event
        self._first: Halves | None = None  # of the first batch, as in event.halves

    def know_first(self, point: Point) -> None:
        """Take the gradients of the first batch, at the start of the event, over all trainable parameters."""
        if self.factor is not None and self._first is None:
            self._first = self._event.halves_of(point)

    def over(self, parameters: list[nn.Parameter]) -> float:
        """The cap on the gradient norm over these parameters. It evaluates the first batch, if that is not known."""
        if self.factor is None:
            return self.absolute
        if self._first is None:
            self.know_first(self._event.batch_loss(self._event.batches[0], self._event.trainable).point(False))
        assert self._first is not None
        before = [self._first, *self._event.halves]
        norms = [math.sqrt(2 * sum(halves[parameter] for parameter in parameters)) for halves in before]
        finite = [norm for norm in norms if math.isfinite(norm)]  # batches of others are refused
        return min(self.absolute, self.factor * sum(finite) / len(finite)) if finite else self.absolute
