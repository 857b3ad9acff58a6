"""The reports of a move that all batches of an event make together, and whether it kept the model's outputs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from teleport._engine.batch_loss import BatchLoss
from teleport._engine.contract import Monitor
from teleport._engine.report import BatchReport, StepRecord
from teleport._engine.statuses import Stopped
from teleport._engine.transaction import Snapshot
from teleport._processes.group import Group
from teleport._quiver.quiver import Quiver
from teleport._symmetry_groups.symmetries import Symmetries


def loss_and_norm(objective: BatchLoss) -> tuple[float, float]:
    """The loss and the gradient norm at the current parameters."""
    point = objective.point(differentiable=False)
    return float(point.loss), point.norm


def tell_of_step(monitor: Monitor, step: int, points: Sequence[tuple[float, float]]) -> bool:
    """Tell the callback of one step that all batches take together, per batch; whether the event is to end."""
    for batch, (loss, norm) in enumerate(points):
        if monitor.stopped:
            break
        monitor.tell(batch, 1, StepRecord(step, loss, norm))
    return monitor.stopped


def report_of(
    acted: bool, stopped: bool, loss_before: float, norm_before: float, loss_after: float, norm_after: float
) -> BatchReport:
    """The report of a batch, with the values before and after the move, if it ``acted``."""
    done = Stopped.STEPS_DONE if acted else Stopped.NOTHING_MOVES
    steps, why = int(acted), Stopped.CALLBACK if stopped else done
    return BatchReport(loss_before, loss_after, norm_before, norm_after, steps, why)


def agree_on_quiver(group: Group, quiver: Quiver) -> None:
    """Check that all ranks of a group found the same quiver."""
    classes = (each for scaled in quiver.scaled.values() for each in (scaled.output_class, scaled.input_class))
    group.agree_on("classes_of_channels", (quiver.freedom, *classes))


def agree_on_symmetries(group: Group, symmetries: Symmetries) -> None:
    """Check that all ranks of a group found the same symmetries."""
    if group.alone:
        return
    agree_on_quiver(group, symmetries.quiver)
    found = (sorted(each.items()) for each in (symmetries.axes, symmetries.levels, symmetries.companions))
    told = repr((*found, symmetries.folded))
    group.agree(symmetries=hashlib.sha256(told.encode()).hexdigest()[:8])


def draw_alike(group: Group, quiver: Quiver, generator: torch.Generator) -> None:
    """Let all ranks of a group draw what the first one draws, for a quiver that must be the same on all."""
    agree_on_quiver(group, quiver)
    group.draw_alike(generator)


def half_tolerance(tolerance: float, parameters: Iterable[nn.Parameter]) -> float:
    """At least 16 rounding errors of half precision, if a parameter has it."""
    coarsest = max((torch.finfo(each.dtype).eps for each in parameters if each.is_floating_point()), default=0.0)
    return max(tolerance, 16 * coarsest) if coarsest > torch.finfo(torch.float32).eps else tolerance


def broken_outputs(difference: float, tolerance: float, snapshot: Snapshot) -> str:
    """The reason to undo a move, empty if there is none."""
    if not (math.isfinite(difference) and snapshot.finite()):
        return "not finite: an output or a parameter"
    if not difference <= tolerance:
        return f"an output moved by {difference:.3g} of the largest, more than the tolerance {tolerance:g}"
    return ""
