"""Moves that the layers' inputs do not see: what every method in the null space does around its own walk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from teleport.ascent import Ascent, Objective, Point, out_of_room
from teleport.caps import Caps
from teleport.capture import Capture, capture
from teleport.event import Event, LossFn, run_event
from teleport.ledger import Ledger, Moving
from teleport.report import BatchReport, LayerReport, StepRecord, TeleportReport
from teleport.transaction import Snapshot, broken_promise


@dataclass(frozen=True)
class NullMoves:
    """The settings that methods in the null space share; :class:`teleport.NullSpace` says what they mean.

    ``differentiable`` says whether a walk starts from gradients with a graph.
    """

    threshold: float
    cap: float | None
    relative_cap: float | None
    rule: str
    guard: str
    tolerance: float
    objective_params: str
    differentiable: bool


@dataclass(frozen=True)
class Ground:
    """What a walk on one batch stands on.

    Attributes:
        batch: its number in the event.
        loss: the loss on it, with its gradients over the parameters that the gradient norm is over.
        parameters: what may move.
        cap: the largest gradient norm.
        start: the point where the parameters stand, or ``None`` where it is not known yet.
        project: from a tensor a parameter to their parts in the null space, zero where no layer may move.
    """

    batch: int
    loss: Objective
    parameters: list[nn.Parameter]
    cap: float
    start: Point | None
    project: Callable[[Sequence[Tensor]], list[Tensor]]


Walk = Callable[[Ground], Ascent]
"""Moves the parameters of a ground, in place; where there are none, it only looks at where they stand."""


def teleport_unseen(
    method: str,
    moves: NullMoves,
    walk: Walk,
    model: nn.Module,
    batches: Iterable[Any],
    loss_fn: LossFn,
    constraint: Iterable[Any] | None,
) -> TeleportReport:
    """One event: ``walk`` on each batch, in the null space of its layers' inputs or of the ``constraint``'s.

    Raises:
        ValueError: no batches, a loss that is no scalar or depends on no trainable parameter, or no such parameter.
    """
    constraint = None if constraint is None else list(constraint)
    if constraint == []:
        raise ValueError("a teleport needs at least one batch")
    return run_event(method, model, batches, loss_fn, lambda event: _Work(moves, walk, event, constraint).run())


class _Work:
    """The steps of one event."""

    def __init__(self, moves: NullMoves, walk: Walk, event: Event, constraint: list[Any] | None) -> None:
        self.moves = moves
        self.walk = walk
        self.event = event
        self.constraint = constraint
        self.ledger = Ledger()

    def run(self) -> tuple[list[BatchReport], list[LayerReport]]:
        """Teleport on each batch in turn."""
        moves, event = self.moves, self.event
        caps = Caps(moves.cap, moves.relative_cap, [event.objective(batch, event.trainable) for batch in event.batches])
        lasting = self.constraint is not None and moves.threshold == 1  # at the exact null space no input changes
        moving: Moving | None = None
        reports = []
        for number, batch in enumerate(event.batches):
            here, versions = self._point(batch), self._versions()
            full = here is not None and out_of_room(here.norm, caps.over(event.trainable), moves.rule)
            if here is not None and full and moving is not None:
                reports.append(_stayed(here))  # before its inputs are decomposed for nothing
                continue
            if moving is None or not lasting:
                moving = self.ledger.open(self._capture(self.constraint or [batch]), moves.threshold)
            self.ledger.next_batch()
            if self._versions() != versions:  # a model that writes into its parameters as it runs
                here = None
            reports.append(self._teleport(number, batch, moving, caps, here))
        return reports, self.ledger.close(reports)

    def _capture(self, batches: list[Any]) -> Capture:
        shared = self.constraint is None and self.moves.threshold == 1
        return capture(self.event.evaluate, batches, self.event.named, shared_objective=shared)

    def _point(self, batch: Any) -> Point | None:
        """The point that a walk on ``batch`` starts from, where the gradient norm is over all parameters."""
        if self.moves.objective_params != "all":
            return None
        return self.event.objective(batch, self.event.trainable).point(self.moves.differentiable)

    def _versions(self) -> list[int]:
        return [parameter._version for parameter in self.event.trainable]

    def _teleport(self, number: int, batch: Any, moving: Moving, caps: Caps, start: Point | None) -> BatchReport:
        """A walk on the level set of one batch, undone where the guard says so."""
        moves = self.moves
        parameters = list(dict.fromkeys(block.parameter for layer, _ in moving for block in layer.blocks))
        self.event.moved |= set(parameters)
        over = parameters if moves.objective_params == "moved" and parameters else self.event.trainable
        loss = self.event.objective(batch, over)
        snapshot = Snapshot(parameters)
        kept_loss = self.event.mean_loss(self.constraint) if self.constraint and self._guarded else None
        project = self._projection(moving, parameters)
        went = self.walk(Ground(number, loss, parameters, caps.over(over), start, project))
        report = BatchReport(
            loss_before=float(went.start.loss),
            loss_after=float(went.end.loss),
            gradient_norm_before=went.trace[0].gradient_norm,
            gradient_norm_after=went.end.norm,
            steps=went.steps,
            stopped=went.stopped if moving else "nothing moves",
            trace=went.trace,
        )
        if self._guarded:
            before, after = report.loss_before, report.loss_after
            if self.constraint and kept_loss is not None:  # it is the constraint's loss that was promised to stay
                before, after = kept_loss, self.event.mean_loss(self.constraint)
            report.reason = broken_promise(before, after, report.gradient_norm_after, moves.tolerance, snapshot)
        if report.reason:
            snapshot.restore()
            report.accepted, report.stopped = False, "rolled back"
        return report

    @property
    def _guarded(self) -> bool:
        return self.moves.guard == "transaction"

    def _projection(self, moving: Moving, parameters: list[nn.Parameter]) -> Callable[[Sequence[Tensor]], list[Tensor]]:
        """``pi_l(G_l)`` for each layer (equations 11 to 16), zero in the parts that no layer holds."""

        def project(tensors: Sequence[Tensor]) -> list[Tensor]:
            given = {p: torch.empty_like(p).copy_(g) for p, g in zip(parameters, tensors, strict=True)}
            projected = {p: torch.zeros_like(p, requires_grad=False) for p in parameters}
            for layer, subspace in moving:
                matrix = layer.gather(given)
                kept = subspace.project(matrix)
                if self.ledger.survived(layer, matrix, kept):
                    layer.scatter(kept, projected)
            return [projected[parameter] for parameter in parameters]

        return project


def _stayed(point: Point) -> BatchReport:
    """The report of a batch whose gradient norm is above the cap already."""
    loss, norm = float(point.loss), point.norm
    return BatchReport(loss, loss, norm, norm, steps=0, stopped="above cap", trace=[StepRecord(0, loss, norm)])
