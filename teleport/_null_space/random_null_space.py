"""A random move in the null space: the control that tells having moved from having moved well."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport._arguments import check_limits, check_positive, check_threshold
from teleport._engine.ascent import Ascent, Line, capped_step, out_of_room
from teleport._engine.event import LossFn
from teleport._engine.report import StepRecord, TeleportReport
from teleport._null_space.ascent_problem import AscentProblem
from teleport._null_space.driver import NullSpaceSettings, run_null_space_event
from teleport._spaces.norms import inner


@dataclass(frozen=True)
class RandomNullSpace:
    """Move as far as asked in a random direction that the layers' inputs do not see.

    For each batch: draw a direction for the weights that :class:`teleport.NullSpace` may move, project it as that
    method projects its gradient, and go ``length`` times the norm of these weights along it, or less far, to where the
    gradient norm meets the cap. The direction is uniform on the sphere of the null space of all layers together. What
    NullSpace gains and this does not is due to its objective, not to the loss being flat where it went.

    Nothing is remembered from call to call: the draw is made from ``seed``, the number of the batch in the event and
    the values of the weights that move. The same call gives the same move, so a resumed run gives that of an unbroken
    one, while events and batches, which find other weights, differ. torch's global random state plays no part.

    Args:
        length: of a batch's move, relative to the norm of all weights that may move.
        seed: any whole number.
        threshold: see :class:`teleport.NullSpace`, as for all that follow.
        cap: the largest gradient norm; the move is shortened to end within 2 % below it.
        relative_cap: a cap as a factor on the mean gradient norm over the event's batches before it.
        guard: ``"transaction"`` or ``"none"``.
        tolerance: of the guard, relative.

    Raises:
        ValueError: an argument outside its range.
    """

    length: float = 0.1
    seed: int = 0
    threshold: float = 1.0
    cap: float | None = None
    relative_cap: float | None = None
    guard: Literal["transaction", "none"] = "transaction"
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        check_positive(length=self.length)
        check_threshold(self.threshold)
        check_limits(self.cap, self.relative_cap, self.guard, self.tolerance)

    def __call__(
        self, model: nn.Module, batches: Iterable[Any], loss_fn: LossFn, constraint: Iterable[Any] | None = None
    ) -> TeleportReport:
        """Teleport ``model`` in place; arguments, errors and what comes back as it was are those of
        :class:`teleport.NullSpace`.
        """
        moves = NullSpaceSettings(
            self.threshold,
            self.cap,
            self.relative_cap,
            rule="cap",
            guard=self.guard,
            tolerance=self.tolerance,
            objective_params="all",
            differentiable=False,
        )
        return run_null_space_event("random", moves, self._ascend, model, batches, loss_fn, constraint)

    def _ascend(self, problem: AscentProblem) -> Ascent:
        """One step along the direction drawn."""
        start = problem.start or problem.loss.point(False)
        trace = [StepRecord(0, float(start.loss), start.norm)]
        if out_of_room(start.norm, problem.cap, "cap"):
            return Ascent(start, start, 0, "above cap", trace)
        if not problem.parameters:
            return Ascent(start, start, 0, "nothing moves", trace)
        drawn = problem.project(self._draw(problem))
        drawn_norm, weight_norm = (float(inner(held, held).sqrt()) for held in (drawn, _values(problem.parameters)))
        if drawn_norm == 0:
            return Ascent(start, start, 0, "no ascent", trace)
        whole = self.length * (weight_norm or 1.0) / drawn_norm
        line = Line(problem.parameters, drawn)
        length, end = capped_step(problem.loss, line, whole, start.norm, problem.cap, False, better=lambda point: True)
        end = end or problem.loss.point(False)
        if length == 0:
            return Ascent(start, end, 0, "no ascent", trace)
        trace.append(StepRecord(1, float(end.loss), end.norm))
        return Ascent(start, end, 1, "steps done" if length == whole else "cap reached", trace)

    def _draw(self, problem: AscentProblem) -> list[Tensor]:
        """Standard normal numbers for each parameter, drawn on the CPU, so that devices agree."""
        digest = hashlib.sha256(f"{self.seed} {problem.batch}".encode())
        for values in _values(problem.parameters):
            digest.update(values.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        source = torch.Generator().manual_seed(int.from_bytes(digest.digest()[:8]) >> 1)
        return [
            torch.randn(parameter.shape, generator=source, dtype=torch.float64).to(parameter.device, parameter.dtype)
            for parameter in problem.parameters
        ]


def _values(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [parameter.detach() for parameter in parameters]
