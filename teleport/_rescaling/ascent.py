"""The ascent of a squared gradient norm that is known in closed form, and where it ended."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from teleport._engine.capped_step import BELOW_CAP
from teleport._engine.statuses import Stopped

BISECTIONS = 60
"""Halvings of a step at most. Each costs one product per weight and no evaluation of the loss."""

NormMonitor = Callable[[int, float], bool]
"""Called with the number of a step and the squared norm after it; ``True`` ends the event."""

X = TypeVar("X")


@dataclass
class Trajectory(Generic[X]):
    """The result of an ascent or a descent.

    Attributes:
        x: where it ended.
        squared_norms: the squared gradient norm at the start and after each step.
        stopped: why it ended.
    """

    x: X
    squared_norms: list[float]
    stopped: Stopped

    @property
    def steps(self) -> int:
        """The number of steps or sweeps."""
        return len(self.squared_norms) - 1


class SquaredGradientNorm(ABC, Generic[X]):
    """``|grad L|^2`` as a function of where a group has moved the parameters. It is convex along each :meth:`along`."""

    @abstractmethod
    def at(self, x: X) -> float:
        """The squared norm at ``x``."""

    @abstractmethod
    def uphill(self, x: X, lr: float, bound: float) -> X | Stopped:
        """The direction of ascent, scaled so that its largest change is ``lr``; why there is none."""

    @abstractmethod
    def along(self, x: X, direction: X, length: float, bound: float) -> X:
        """The point after a step, within the bound."""

    def balance(self, x: X, *, sweeps: int, bound: float, monitor: NormMonitor | None = None) -> Trajectory[X]:
        """Descend to the minimum.

        Raises:
            NotImplementedError: of a norm whose minimum is not sought.
        """
        raise NotImplementedError

    def ascend(
        self,
        x: X,
        *,
        lr: float,
        steps: int,
        cap: float,
        rule: str,
        bound: float,
        monitor: NormMonitor | None = None,
    ) -> Trajectory[X]:
        """Ascend from ``x`` along the gradient, each step scaled so that its largest change is ``lr``.

        Args:
            x: where the ascent starts.
            lr: the largest change of a logarithm in one step.
            steps: the largest number of steps.
            cap: the largest gradient norm.
            rule: ``"cap"`` shortens the step that would pass the cap, so that it ends within 2 % below it; ``"fixed"``
                takes the whole step and stops after it.
            bound: on the magnitude of the logarithms.
            monitor: called after each step; ``True`` ends the ascent.
        """
        squared = [self.at(x)]
        stopped = Stopped.STEPS_DONE
        for step in range(steps):
            norm = math.sqrt(squared[-1])
            if norm > cap or (rule == "cap" and norm >= BELOW_CAP * cap):
                stopped = Stopped.CAP_REACHED if step else Stopped.ABOVE_CAP
                break
            direction = self.uphill(x, lr, bound)
            if isinstance(direction, Stopped):
                stopped = direction
                break
            reached = self._step(x, direction, norm, cap if rule == "cap" else math.inf, bound)
            if reached is None:
                stopped = Stopped.NO_ASCENT
                break
            x = reached
            squared.append(self.at(x))
            if monitor is not None and monitor(step + 1, squared[-1]):
                stopped = Stopped.CALLBACK
                break
        return Trajectory(x, squared, stopped)

    def _step(self, x: X, direction: X, norm: float, cap: float, bound: float) -> X | None:
        """The point after the longest step, at most the whole one, at which the norm is larger and at most the cap.

        The norm is convex, so it grows along a straight line in the direction of its gradient. It can only decrease if
        the bound clips the step.

        Returns:
            ``None`` if no step length meets both conditions.
        """
        low, high = 0.0, 1.0
        best = None
        for attempt in range(BISECTIONS):
            length = high if attempt == 0 else 0.5 * (low + high)
            trial = self.along(x, direction, length, bound)
            reached = math.sqrt(self.at(trial))
            if norm < reached <= cap and math.isfinite(reached):
                best, low = trial, length
                if attempt == 0 or reached >= BELOW_CAP * cap:
                    break
            else:
                high = length
        return best
