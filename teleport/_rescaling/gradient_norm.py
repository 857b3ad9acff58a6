"""The squared gradient norm as a function of the factors, in closed form: a sum of exponentials in ``log tau``.

If the rows of a weight are multiplied by tau and its columns divided by tau', the rows of its gradient are divided by
tau and the columns multiplied by tau' (Armenta et al. 2023, Theorem 5.1). One gradient therefore gives the norm at
every rescaling. The squared norm is convex in ``log tau`` and has no upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from teleport._engine.statuses import Stopped
from teleport._processes.group import ALONE, Group
from teleport._quiver.quiver import Scaled
from teleport._rescaling.ascent import NormMonitor, SquaredGradientNorm, Trajectory
from teleport._rescaling.factor_variables import FactorVariables

CONVERGED = 1e-10
"""The minimum is reached if a sweep changes no ``log tau`` by more."""


class SquaredGradientNormOfFactors(SquaredGradientNorm[Tensor]):
    """``|grad L|^2`` as a function of the variables ``x`` of ``FactorVariables``.

    Args:
        factor_variables: the factors of each parameter as functions of ``x``.
        squares: for each parameter the squares of its gradient's elements at ``x = origin``, in the parameter's shape.
        origin: ``[variables]``.
        group: of processes, of which each may have the squares of the rows that it holds.
    """

    def __init__(
        self,
        factor_variables: FactorVariables,
        squares: Mapping[nn.Parameter, Tensor],
        origin: Tensor,
        group: Group = ALONE,
    ) -> None:
        self.factor_variables = factor_variables
        self.group = group
        log_tau = factor_variables.log_tau(origin)
        self._terms = [
            ParameterTerm(scaled, squares[scaled.parameter], log_tau) for scaled in factor_variables.scaled.values()
        ]
        scaled = {each.parameter for each in factor_variables.scaled.values()}
        fixed = sum(float(square.sum()) for parameter, square in squares.items() if parameter not in scaled)
        (self.constant,) = group.totals([fixed])
        of_term = [factor_variables.variable[term.free(factor_variables.sign)] for term in self._terms]
        self._of_block = [
            [
                term
                for term, variables in zip(self._terms, of_term, strict=True)
                if bool(torch.isin(variables, block).any())
            ]
            for block in factor_variables.blocks
        ]

    def at(self, x: Tensor) -> float:
        """The squared norm at ``x [variables]``."""
        log_tau = self.factor_variables.log_tau(x)
        (terms,) = self.group.totals([sum(float(term.sums(log_tau)[0].sum()) for term in self._terms)])
        return self.constant + terms

    def gradient(self, x: Tensor) -> Tensor:
        """``grad_x (1/2 |grad L|^2)``, ``[variables]``."""
        falling, rising = self._parts(x, self._terms)
        return rising - falling

    def _parts(self, x: Tensor, terms: Sequence[ParameterTerm]) -> tuple[Tensor, Tensor]:
        """The sums of the terms that fall as ``exp(-2x)`` and that rise as ``exp(2x)``, each ``[variables]``."""
        factor_variables = self.factor_variables
        log_tau = factor_variables.log_tau(x)
        by_row, by_column = torch.zeros_like(log_tau), torch.zeros_like(log_tau)
        for term in terms:
            rows, columns = term.sums(log_tau)
            by_row.index_add_(0, term.rows.flatten(), rows.flatten())
            by_column.index_add_(0, term.columns.flatten(), columns.flatten())
        by_row, by_column = self.group.total(torch.stack([by_row, by_column]))
        falling, rising = torch.zeros_like(x), torch.zeros_like(x)
        for sign, down, up in ((1, by_row, by_column), (-1, by_column, by_row)):
            classes = (factor_variables.sign == sign).nonzero().flatten()
            falling.index_add_(0, factor_variables.variable[classes], down[classes])
            rising.index_add_(0, factor_variables.variable[classes], up[classes])
        return falling, rising

    def uphill(self, x: Tensor, lr: float, bound: float) -> Tensor | Stopped:
        """The gradient, without variables that the bound holds, scaled so that its largest change is ``lr``."""
        gradient = self.gradient(x)
        free = (gradient != 0) & ~((x.abs() >= bound) & (x.sign() == gradient.sign()))
        if not bool(free.any()):
            return Stopped.BOUND_REACHED if bool((gradient != 0).any()) else Stopped.NO_ASCENT
        direction = torch.where(free, gradient, 0)
        direction *= lr / float(direction.abs().max())
        return direction

    def along(self, x: Tensor, direction: Tensor, length: float, bound: float) -> Tensor:
        """The variables after a step, within the bound."""
        return (x + length * direction).clamp(-bound, bound)

    def balance(
        self, x: Tensor, *, sweeps: int, bound: float, monitor: NormMonitor | None = None
    ) -> Trajectory[Tensor]:
        """Descend from ``x`` to the minimum by block coordinate descent, with the closed-form minimum of each block.

        With all other variables fixed, ``a exp(-2x) + b exp(2x)`` has its minimum at ``(log a - log b) / 4``. With a
        single hidden layer the first sweep ends at ``tau = sqrt(|row gradient| / |column gradient|)``.

        Args:
            x: ``[variables]``, where the descent starts.
            sweeps: the largest number of sweeps over all blocks.
            bound: on ``|x|``; the minimum is the one within the bound.
            monitor: called after each sweep; ``True`` ends the descent.
        """
        squared = [self.at(x)]
        for sweep in range(1, sweeps + 1):
            before = x
            for block, terms in zip(self.factor_variables.blocks, self._of_block, strict=True):
                falling, rising = (part[block] for part in self._parts(x, terms))
                shift = (falling.log() - rising.log()) / 4  # infinite if exactly one of both is zero
                shift = torch.where((falling == 0) & (rising == 0), 0, shift)
                x = x.index_copy(0, block, (x[block] + shift).clamp(-bound, bound))
            if not bool(((x - before).abs() > CONVERGED).any()):
                return Trajectory(before, squared, Stopped.MINIMUM_REACHED)
            squared.append(self.at(x))
            if monitor is not None and monitor(sweep, squared[-1]):
                return Trajectory(x, squared, Stopped.CALLBACK)
        return Trajectory(x, squared, Stopped.STEPS_DONE)


class ParameterTerm:
    """The term of one parameter: ``sum square[element] exp(2 (log_tau[input_class] - log_tau[output_class]))``.

    The elements are arranged as ``square [shared, rows, columns]`` and summed over axes along which neither class
    varies. Output classes vary along the first two axes (``rows [shared, rows]``), input classes along the first and
    the last (``columns [shared, columns]``).
    """

    def __init__(self, scaled: Scaled, square: Tensor, log_tau: Tensor) -> None:
        sides = scaled.output_class, scaled.input_class
        lengths_of_axes = zip(*(side.shape for side in sides), strict=True)
        varies = [(output > 1, input_ > 1) for output, input_ in lengths_of_axes]
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
        """The classes of the term with ``sign [classes]`` other than 0."""
        classes = torch.cat([self.rows.flatten(), self.columns.flatten()])
        return classes[sign[classes] != 0]

    def sums(self, log_tau: Tensor) -> tuple[Tensor, Tensor]:
        """The sums over each row ``[shared, rows]`` and over each column ``[shared, columns]``."""
        rows, columns = torch.exp(-2 * log_tau[self.rows]), torch.exp(2 * log_tau[self.columns])
        by_row = rows * (self.square @ columns[:, :, None])[:, :, 0]
        by_column = columns * (rows[:, None, :] @ self.square)[:, 0]
        return by_row, by_column

    def products(self, log_tau: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`sums`, with each element times ``direction[input_class] - direction[output_class]``.

        Args:
            log_tau: ``[classes]``.
            direction: ``[classes]``, along which ``log_tau`` changes; twice the sums are the change of the sums.
        """
        rows, columns = torch.exp(-2 * log_tau[self.rows]), torch.exp(2 * log_tau[self.columns])
        of_rows, of_columns = direction[self.rows], direction[self.columns]
        both = torch.stack([columns, columns * of_columns], -1)
        by_row = rows[..., None] * (self.square @ both)
        both = torch.stack([rows, rows * of_rows], -2)
        by_column = columns[:, None, :] * (both @ self.square)
        return by_row[..., 1] - of_rows * by_row[..., 0], of_columns * by_column[:, 0] - by_column[:, 1]
