"""Random directions in the parameters of an ascent problem, and the move along one."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from teleport._engine.ascent import Ascent
from teleport._engine.batch_loss import Point
from teleport._engine.capped_step import Line, capped_step
from teleport._engine.report import StepRecord
from teleport._engine.statuses import Stopped
from teleport._null_space.ascent_problem import AscentProblem


class RandomDirections:
    """The random directions of one event.

    Args:
        source: of the event; one number is drawn from it.
    """

    def __init__(self, source: torch.Generator) -> None:
        self._device = source.device
        self._event = int(torch.randint(2**62, (), generator=source, device=source.device))

    def draw(self, problem: AscentProblem) -> list[Tensor]:
        """Standard normal numbers for each parameter, drawn on the source's device.

        Every parameter of every batch has numbers of its own, so that a batch or a layer that stays shifts no others.
        """
        group = problem.loss.group
        self._event = group.first(self._event)
        place = {parameter: number for number, parameter in enumerate(problem.loss.parameters)}
        return [
            group.part_of(each, self._normal(each, group.whole_shape(each), problem.batch, place[each]))
            for each in problem.parameters
        ]

    def _normal(self, parameter: nn.Parameter, shape: torch.Size, batch: int, place: int) -> Tensor:
        digest = hashlib.sha256(f"{self._event} {batch} {place}".encode()).digest()
        source = torch.Generator(self._device).manual_seed(int.from_bytes(digest[:8]) >> 1)
        drawn = torch.randn(shape, generator=source, dtype=torch.float64, device=self._device)
        return drawn.to(parameter.device, parameter.dtype)


def move_along(problem: AscentProblem, start: Point, line: Line, length: float) -> Ascent:
    """One move along a line whatever the gradient norm does, of this length or up to the cap."""
    trace = [StepRecord(0, float(start.loss), start.norm)]
    taken, end = capped_step(problem.loss, line, length, start.norm, problem.cap, False, better=lambda point: True)
    end = end or problem.loss.point(False)
    if taken == 0:
        return Ascent(start, end, 0, Stopped.NO_ASCENT, trace)
    trace.append(StepRecord(1, float(end.loss), end.norm))
    stopped = Stopped.STEPS_DONE if taken == length else Stopped.CAP_REACHED
    return Ascent(start, end, 1, Stopped.CALLBACK if problem.monitor(trace[-1]) else stopped, trace)
