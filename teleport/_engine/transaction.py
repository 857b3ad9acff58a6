"""Snapshots of parameters, and the guard: steps that change the loss beyond the tolerance are rolled back."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from teleport._engine.batch_loss import NOTHING, copy_of
from teleport._engine.finiteness import all_finite
from teleport._engine.report import BatchReport
from teleport._engine.statuses import Stopped
from teleport._errors import UnsupportedModel
from teleport._processes.group import ALONE, Group
from teleport._tracing.ownership import distinct_elements
from teleport._tracing.replicas import is_sharded, local_part, shards_again
from teleport._tracing.undisturbed import ModelState

Result = TypeVar("Result")


class Snapshot:
    """A copy of the values of some parameters, without those whose elements share memory (not writable).

    Args:
        parameters: to be copied.
        known: earlier copies, which are taken in place of new ones where they have the current values.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], known: Mapping[nn.Parameter, Tensor] = NOTHING) -> None:
        self._held = [(each, copy_of(each, known)) for each in parameters if distinct_elements(each)]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that are held."""
        return [parameter for parameter, _ in self._held]

    @property
    def values(self) -> dict[nn.Parameter, Tensor]:
        """The value of each parameter that is held."""
        return dict(self._held)

    @torch.no_grad()
    def restore(self) -> None:
        """Write the values back into the same parameters, bit for bit."""
        for parameter, value in self._held:
            parameter.copy_(value)

    @torch.no_grad()
    def restore_all_but(self, moved: Iterable[nn.Parameter]) -> None:
        """Restore parameters that evaluations changed (``max_norm`` of an embedding), except the ``moved``."""
        kept = set(moved)
        for parameter, value in self._held:
            if parameter not in kept and not torch.equal(parameter, value):
                parameter.copy_(value)

    def finite(self) -> bool:
        """Whether the current parameters are all finite."""
        return all_finite(parameter for parameter, _ in self._held)


class ModelSnapshot(Snapshot):
    """Of all parameters of a model, of sharded ones what this process holds.

    Parameters that FSDP keeps whole become shards again when it is taken, and before it is restored: the values are
    those of the shards.

    Args:
        model: any module.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        shards_again(model)
        super().__init__(_held(parameter) for parameter in model.parameters())

    def restore(self) -> None:
        """See :class:`Snapshot`."""
        shards_again(self._model)
        super().restore()


def _held(parameter: nn.Parameter) -> nn.Parameter:
    """What this process holds of a parameter, in the same memory."""
    return nn.Parameter(local_part(parameter.detach()), requires_grad=False) if is_sharded(parameter) else parameter


def all_or_nothing(
    model: nn.Module,
    work: Callable[[Snapshot, ModelState], Result],
    keep_modes: bool = False,
    group: Group = ALONE,
) -> Result:
    """The result of ``work``, which evaluates ``model`` and moves its parameters; after an exception, a
    ``KeyboardInterrupt`` included, everything is as it was.

    ``work`` runs while the model is prepared for evaluations; see :func:`teleport._tracing.undisturbed.undisturbed`. An
    interrupt may come between any two instructions, those of the clean-up included. So the clean-up is within a second
    ``try`` that repeats it, and nothing depends on the ``__exit__`` of a context manager.

    Args:
        model: any module.
        work: takes a snapshot of all parameters and the state of the model.
        keep_modes: whether modules are evaluated in their own modes instead of evaluation mode.
        group: of processes that do so together: an exception in one of them undoes it in all.
    """
    before, state = Snapshot(model.parameters()), ModelState(model)
    try:
        try:
            state.begin(keep_modes)
            result = work(before, state)
            group.commit()
            state.restore()
            return result
        except NotImplementedError as error:
            _undo(before, state)
            if "FlexAttention" not in str(error):
                raise
            message = (
                "flex_attention has no backward pass on this device, and a teleport needs gradients; use "
                "torch.nn.functional.scaled_dot_product_attention, or a device that has one"
            )
            raise UnsupportedModel(message) from error
        except BaseException as error:
            _close_generators(error)
            _undo(before, state)
            interrupt = error.__context__
            if isinstance(interrupt, KeyboardInterrupt) and "empty mode stack" in str(error):
                raise interrupt  # noqa: B904  # in torch's own handling of modes, whose exit fails then
            raise
    except BaseException as error:
        _close_generators(error)
        _undo(before, state)
        raise


def _close_generators(error: BaseException | None) -> None:
    """Close what an interrupt left open in frames of its traceback, before the clean-up rather than some time after it.

    An interrupt within ``contextlib`` leaves the generator of a context manager suspended. Its clean-up would run once
    the traceback is dropped, and undo the one here.
    """
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _undo(before: Snapshot, state: ModelState) -> None:
    try:
        before.restore()
    finally:
        state.restore_after_error()


def violation(before: float, after: float, norm: float, tolerance: float, snapshot: Snapshot) -> str:
    """Why a move must be rolled back; empty if it may stay.

    Args:
        before: the loss that must not change, before the move.
        after: the same loss after it.
        norm: the gradient norm after it.
        tolerance: on the change of the loss, relative to ``max(1, |before|)``.
        snapshot: of the parameters that moved.
    """
    if not (math.isfinite(after) and math.isfinite(norm) and snapshot.finite()):
        return f"not finite: loss {after:.6g}, gradient norm {norm:.6g}"
    if not abs(after - before) <= tolerance * max(1.0, abs(before)):
        return f"the loss moved from {before:.6g} to {after:.6g}, more than the tolerance {tolerance:g}"
    return ""


def not_accepted(
    reports: Sequence[BatchReport], reasons: Iterable[str], stopped: Stopped = Stopped.ROLLED_BACK
) -> bool:
    """Enter in the reports of batches with one common move that it was not accepted, if any batch has a reason.

    Args:
        reports: one per batch.
        reasons: one per batch, empty if it has none of its own.
        stopped: the status of all of them.

    Returns:
        whether there is a reason.
    """
    own = list(reasons)
    first = next(filter(None, own), "")
    for report, reason in zip(reports, own, strict=True):
        if first:
            report.accepted, report.stopped, report.reason = False, stopped, reason or first
    return bool(first)


def roll_back_if_violated(
    report: BatchReport,
    tolerance: float,
    snapshot: Snapshot,
    losses: tuple[float, float] | None = None,
    group: Group = ALONE,
) -> None:
    """Restore the parameters if the loss changed beyond the tolerance, and set that in the report of the batch.

    Args:
        report: of the batch.
        tolerance: as of :func:`violation`.
        snapshot: of the parameters that moved.
        losses: the loss that must not change, before and after, if it is not the batch's own.
        group: of processes that may hold rows of the parameters.
    """
    if not report.accepted:  # nothing moved
        return
    before, after = losses or (report.loss_before, report.loss_after)
    if reason := group.common(violation(before, after, report.gradient_norm_after, tolerance, snapshot)):
        report.reason = reason
        snapshot.restore()
        report.accepted, report.stopped = False, Stopped.ROLLED_BACK
