"""The squared gradient norm over all positive rescalings, in closed form: a sum of exponentials in log tau.

As a weight's rows are multiplied by tau and its columns divided by another, its gradient's rows are divided and its
columns multiplied (Armenta et al. 2023, Theorem 5.1). One gradient thus tells the norm at every rescaling, which is
convex in log tau and has no upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from teleport._engine.ascent import BELOW_CAP
from teleport._engine.statuses import Stopped
from teleport._quiver.quiver import Scaled
from teleport._rescaling.factor_variables import FactorVariables

STILL = 1e-10
"""A sweep that changes no log tau by more has found the minimum."""

BISECTIONS = 60
"""Halvings of a step, each of which costs a product a weight and no evaluation of the loss."""


NormMonitor = Callable[[int, float], bool]
"""Told of the number of a step and the squared norm after it; ``True`` if the event is to end."""


@dataclass
class Trajectory:
    """How log tau went: the variables at the end, the squared norm after each step (first: before any), and why."""

    x: Tensor
    squared_norms: list[float]
    stopped: Stopped

    @property
    def steps(self) -> int:
        """Steps or sweeps taken."""
        return len(self.squared_norms) - 1


class SquaredGradientNormOfFactors:
    """``|grad L|^2`` as a function of the variables ``x`` of ``FactorVariables``.

    Args:
        channels: which parameters scale with which units.
        squares: for each parameter the squares of its gradient's elements, taken at ``x = origin``.
        origin: ``[variables]``.
    """

    def __init__(self, channels: FactorVariables, squares: Mapping[nn.Parameter, Tensor], origin: Tensor) -> None:
        self.channels = channels
        log_tau = channels.log_tau(origin)
        self._terms = [_Term(scaled, squares[scaled.parameter], log_tau) for scaled in channels.scaled.values()]
        scaled = {each.parameter for each in channels.scaled.values()}
        self.constant = sum(float(square.sum()) for parameter, square in squares.items() if parameter not in scaled)
        self._of_block = [
            [term for term in self._terms if bool(torch.isin(channels.variable[term.free(channels.sign)], block).any())]
            for block in channels.blocks
        ]

    def at(self, x: Tensor) -> float:
        """The squared norm."""
        log_tau = self.channels.log_tau(x)
        return self.constant + sum(float(term.sums(log_tau)[0].sum()) for term in self._terms)

    def gradient(self, x: Tensor) -> Tensor:
        """``grad_x (1/2 |grad L|^2)``, ``[variables]``."""
        falling, rising = self._parts(x, self._terms)
        return rising - falling

    def _parts(self, x: Tensor, terms: Sequence[_Term]) -> tuple[Tensor, Tensor]:
        """For each variable the sum of the terms that fall with it, and of those that rise, as ``exp(-+2x)``."""
        channels = self.channels
        log_tau = channels.log_tau(x)
        by_row, by_column = torch.zeros_like(log_tau), torch.zeros_like(log_tau)
        for term in terms:
            rows, columns = term.sums(log_tau)
            by_row.index_add_(0, term.rows.flatten(), rows.flatten())
            by_column.index_add_(0, term.columns.flatten(), columns.flatten())
        falling, rising = torch.zeros_like(x), torch.zeros_like(x)
        for sign, down, up in ((1, by_row, by_column), (-1, by_column, by_row)):
            units = (channels.sign == sign).nonzero().flatten()
            falling.index_add_(0, channels.variable[units], down[units])
            rising.index_add_(0, channels.variable[units], up[units])
        return falling, rising

    def ascend(
        self,
        x: Tensor,
        *,
        lr: float,
        steps: int,
        cap: float,
        rule: str,
        bound: float,
        monitor: NormMonitor | None = None,
    ) -> Trajectory:
        """Ascend from ``x`` along the gradient, each step scaled so that its largest change is ``lr``.

        Args:
            x: ``[variables]``, where the ascent starts.
            lr: the largest change of a log tau in one step.
            steps: at most so many.
            cap: the largest gradient norm.
            rule: ``"cap"`` shortens the step that would pass the cap, to end within 2 % below it; ``"fixed"`` takes it
                whole, and stops after it.
            bound: on ``|x|``.
            monitor: told of each step; ``True`` ends the ascent there.
        """
        squared = [self.at(x)]
        stopped = Stopped.STEPS_DONE
        for step in range(steps):
            norm = math.sqrt(squared[-1])
            if norm > cap or (rule == "cap" and norm >= BELOW_CAP * cap):
                stopped = Stopped.CAP_REACHED if step else Stopped.ABOVE_CAP
                break
            gradient = self.gradient(x)
            free = (gradient != 0) & ~((x.abs() >= bound) & (x.sign() == gradient.sign()))
            if not bool(free.any()):
                stopped = Stopped.BOUND_REACHED if bool((gradient != 0).any()) else Stopped.NO_ASCENT
                break
            direction = torch.where(free, gradient, 0)
            direction *= lr / float(direction.abs().max())
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

    def _step(self, x: Tensor, direction: Tensor, norm: float, cap: float, bound: float) -> Tensor | None:
        """The longest step up to a whole one, within the bound, on which the norm grows and stays below the cap.

        The norm grows along a straight line, as it is convex; it can fall only where the bound bends the line.
        """
        low, high = 0.0, 1.0
        best = None
        for attempt in range(BISECTIONS):
            length = high if attempt == 0 else 0.5 * (low + high)
            trial = (x + length * direction).clamp(-bound, bound)
            reached = math.sqrt(self.at(trial))
            if norm < reached <= cap and math.isfinite(reached):
                best, low = trial, length
                if attempt == 0 or reached >= BELOW_CAP * cap:
                    break
            else:
                high = length
        return best

    def balance(self, x: Tensor, *, sweeps: int, bound: float, monitor: NormMonitor | None = None) -> Trajectory:
        """Descend from ``x`` to the minimum, by the closed-form minimum of each group of channels in turn.

        Given the others, ``a exp(-2x) + b exp(2x)`` is least at ``(log a - log b) / 4``: for a single hidden layer the
        first sweep ends at ``tau = sqrt(|row gradient| / |column gradient|)``.

        Args:
            x: ``[variables]``, where the descent starts.
            sweeps: over all groups, at most.
            bound: on ``|x|``; the minimum is the one within it.
            monitor: told of each sweep; ``True`` ends the descent there.
        """
        squared = [self.at(x)]
        for sweep in range(1, sweeps + 1):
            before = x
            for block, terms in zip(self.channels.blocks, self._of_block, strict=True):
                falling, rising = (part[block] for part in self._parts(x, terms))
                shift = (falling.log() - rising.log()) / 4  # infinite where only one of both is zero
                shift = torch.where((falling == 0) & (rising == 0), 0, shift)
                x = x.index_copy(0, block, (x[block] + shift).clamp(-bound, bound))
            if not bool(((x - before).abs() > STILL).any()):
                return Trajectory(before, squared, Stopped.MINIMUM_REACHED)
            squared.append(self.at(x))
            if monitor is not None and monitor(sweep, squared[-1]):
                return Trajectory(x, squared, Stopped.CALLBACK)
        return Trajectory(x, squared, Stopped.STEPS_DONE)


class _Term:
    """One parameter's share: ``sum square[element] exp(2 (log_tau[input_class] - log_tau[output_class]))``.

    Its elements are laid out as ``square [shared, rows, columns]``, summed over axes along which neither class varies:
    numerators vary along the first two, ``rows [shared, rows]``, denominators along the first and last.
    """

    def __init__(self, scaled: Scaled, square: Tensor, log_tau: Tensor) -> None:
        sides = scaled.output_class, scaled.input_class
        lengths_of_axes = zip(*(side.shape for side in sides), strict=True)
        varies = [(numerators > 1, denominators > 1) for numerators, denominators in lengths_of_axes]
        both, rows, columns, neither = (
            [axis for axis, kind in enumerate(varies) if kind == wanted]
            for wanted in ((True, True), (True, False), (False, True), (False, False))
        )
        lengths = [math.prod(square.shape[axis] for axis in axes) for axes in (both, rows, columns)]
        order = both + rows + columns + neither
        self.rows = scaled.output_class.permute(order).reshape(lengths[0], lengths[1])
        self.columns = scaled.input_class.permute(order).reshape(lengths[0], lengths[2])
        origin = 2 * (log_tau[self.rows][:, :, None] - log_tau[self.columns][:, None, :])
        arranged = square.double().permute(order).reshape(*lengths, -1).sum(3)
        self.square = arranged * torch.exp(origin)

    def free(self, sign: Tensor) -> Tensor:
        """The classes of the term that are not pinned."""
        classes = torch.cat([self.rows.flatten(), self.columns.flatten()])
        return classes[sign[classes] != 0]

    def sums(self, log_tau: Tensor) -> tuple[Tensor, Tensor]:
        """The sums over each row and over each column."""
        rows, columns = torch.exp(-2 * log_tau[self.rows]), torch.exp(2 * log_tau[self.columns])
        by_row = rows * (self.square @ columns[:, :, None])[:, :, 0]
        by_column = columns * (rows[:, None, :] @ self.square)[:, 0]
        return by_row, by_column
