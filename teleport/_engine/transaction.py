"""A teleport as a transaction: what was promised holds, or the parameters are put back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from teleport._engine.report import BatchReport
from teleport._engine.statuses import Stopped
from teleport._tracing.ownership import distinct_elements


class Snapshot:
    """The values of some parameters, to go back to; those whose elements share memory cannot be written to."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._held = [(each, each.detach().clone()) for each in parameters if distinct_elements(each)]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the values back, bit for bit, into the same parameters."""
        for parameter, value in self._held:
            parameter.copy_(value)

    @torch.no_grad()
    def restore_all_but(self, moved: Iterable[nn.Parameter]) -> None:
        """Put back what evaluating the loss changed by itself (an embedding's ``max_norm``), beside the ``moved``."""
        ours = set(moved)
        for parameter, value in self._held:
            if parameter not in ours and not torch.equal(parameter, value):
                parameter.copy_(value)

    def finite(self) -> bool:
        """Whether the parameters, as they stand now, are all finite."""
        return all(_finite(parameter.detach()) for parameter, _ in self._held)


@contextmanager
def restored_on_error(snapshot: Snapshot) -> Iterator[Snapshot]:
    """Restore the snapshot if the block ends with an exception, ``KeyboardInterrupt`` included."""
    try:
        yield snapshot
    except BaseException:
        snapshot.restore()
        raise


def _finite(values: Tensor) -> bool:
    """Whether all are. A sum that is says so many times faster; one that is not may only be out of range."""
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def violation(before: float, after: float, norm: float, tolerance: float, snapshot: Snapshot) -> str:
    """Why a move must be undone, empty where it may stay.

    Args:
        before: the loss that was to stay, before the move.
        after: the same loss after it.
        norm: the gradient norm after it.
        tolerance: how far the loss may move, relative to ``max(1, |before|)``.
        snapshot: of the parameters that moved.
    """
    if not (math.isfinite(after) and math.isfinite(norm) and snapshot.finite()):
        return f"not finite: loss {after:.6g}, gradient norm {norm:.6g}"
    if not abs(after - before) <= tolerance * max(1.0, abs(before)):
        return f"the loss moved from {before:.6g} to {after:.6g}, more than the tolerance {tolerance:g}"
    return ""


def roll_back_if_violated(
    report: BatchReport, tolerance: float, snapshot: Snapshot, losses: tuple[float, float] | None = None
) -> None:
    """Put the parameters back where a batch broke its promise, and say so in its report.

    Args:
        report: of the batch, as it went.
        tolerance: as of :func:`violation`.
        snapshot: of the parameters that moved.
        losses: what was to stay, before and after, where it is not the batch's own loss.
    """
    before, after = losses or (report.loss_before, report.loss_after)
    report.reason = violation(before, after, report.gradient_norm_after, tolerance, snapshot)
    if report.reason:
        snapshot.restore()
        report.accepted, report.stopped = False, Stopped.ROLLED_BACK
