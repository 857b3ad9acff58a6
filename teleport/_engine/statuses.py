"""Why the steps on a batch ended."""

from __future__ import annotations

from enum import StrEnum


class Stopped(StrEnum):
    """Why a batch's steps ended (``BatchReport.stopped``). A member equals its text, which recorded tables hold."""

    STEPS_DONE = "steps done"
    """All steps that were asked for were taken."""
    CAP_REACHED = "cap reached"
    """The gradient norm came within 2 % of the cap; with ``step="fixed"``, above it."""
    ABOVE_CAP = "above cap"
    """The gradient norm left no room under the cap before the first step."""
    NO_ASCENT = "no ascent"
    """No length of the next step raises the objective."""
    NOT_FINITE = "not finite"
    """The loss, the gradient norm or a matrix became infinite or NaN."""
    NOTHING_MOVES = "nothing moves"
    """The method has nothing that it may move in this model."""
    STATIONARY = "stationary"
    """Level set: the point meets the first-order conditions."""
    BOUND_REACHED = "bound reached"
    """Rescaling: every factor that would raise the gradient norm is at its bound."""
    MINIMUM_REACHED = "minimum reached"
    """Rescaling, balance: a sweep changed no factor any more."""
    ROLLED_BACK = "rolled back"
    """The guard undid the steps; ``BatchReport.reason`` says why."""
    CALLBACK = "stopped by the callback"
    """The callback returned ``True``; the steps until then stay, unless the guard undid them."""
