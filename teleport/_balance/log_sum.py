"""The criteria of ``Balance`` as functions of the log factors: the logarithm of a sum of exponentials, less a line.

A parameter element that is multiplied by ``tau[output] / tau[input]`` has a term ``mass exp(2 (y[input] - y[output]))``
with ``y`` a multiple of ``log tau``. The logarithm of a sum of such terms is convex in ``y``, so every minimum is the
global one, and the factors at it do not depend on how it is found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from teleport._processes.group import ALONE, Group
from teleport._quiver.quiver import Freedom, Quiver
from teleport._rescaling.gradient_norm import ParameterTerm

ROUNDING = 1e-16
"""The least share of the falling and of the rising terms of a variable, which a difference shows."""


class ClassVariables:
    """The free classes of a quiver as functions of variables ``x``: ``y[class] = sign[class] x[variable[class]]``.

    Two classes of inverse factors have one variable, with opposite signs.

    Args:
        quiver: of the network.
        device: of the tensors.

    Attributes:
        variable: ``[classes]``; 0 where the sign is 0.
        sign: ``[classes]``, 1 or -1, or 0 if ``tau = 1``.
        count: the number of variables.
    """

    def __init__(self, quiver: Quiver, device: torch.device) -> None:
        classes = torch.arange(len(quiver.freedom))
        inverse = quiver.inverse.cpu()
        free = quiver.freedom.cpu() != Freedom.PINNED
        follows = free & (inverse >= 0) & (inverse < classes)
        self.mirror = torch.where(inverse >= 0, inverse, classes + len(classes)).to(device)
        self.mirror[0] = 0
        number = torch.cumsum((free & ~follows).long(), 0) - 1
        variable = torch.where(follows, number[inverse.clamp(min=0)], number)
        self.variable = torch.where(free, variable, 0).to(device)
        self.sign = (free.double() - 2 * follows.double()).to(device)
        self.count = int((free & ~follows).sum())

    def of_classes(self, x: Tensor) -> Tensor:
        """``[classes]`` from ``[variables]``."""
        padded = torch.cat([x, x.new_zeros(1)])  # so that the index is valid if there are no variables
        return self.sign * padded[self.variable]

    def of_variables(self, values: Tensor) -> Tensor:
        """The adjoint of :meth:`of_classes`: ``[variables]`` from ``[classes]``."""
        return values.new_zeros(self.count + 1).index_add_(0, self.variable, self.sign * values)[: self.count]

    def pin(self, classes: Tensor) -> None:
        """Give classes, a mask, the factor 1, and those of the same variables."""
        pinned = torch.zeros(self.count + 1, dtype=torch.bool, device=classes.device)
        pinned[self.variable[classes & (self.sign != 0)]] = True
        self.sign[pinned[self.variable]] = 0


class LogSum:
    """``log(constant + sum of terms) - slope . x`` over the variables ``x``.

    Args:
        quiver: how each parameter scales.
        masses: the term of each element at ``x = 0``, not negative, float64, in the parameter's shape; parameters that
            are not in it have none.
        variables: the factors.
        group: of processes, of which each may have the terms of the rows that it holds.

    Attributes:
        terms: of the parameters that scale, those of this process.
        constant: the sum of the terms of the others.
        slope: ``[variables]``.
    """

    def __init__(
        self,
        quiver: Quiver,
        masses: Mapping[nn.Parameter, Tensor],
        variables: ClassVariables,
        group: Group = ALONE,
    ) -> None:
        zeros = torch.zeros_like(variables.sign)
        scaled = [each for each in quiver.scaled.values() if each.parameter in masses]
        self.variables = variables
        self.group = group
        self.terms = [ParameterTerm(each, masses[each.parameter], zeros) for each in scaled]
        moving = {each.parameter for each in scaled}
        fixed = sum(float(mass.sum()) for parameter, mass in masses.items() if parameter not in moving)
        (self.constant,) = group.totals([fixed])
        self.slope = zeros.new_zeros(variables.count)

    def value(self, x: Tensor) -> float:
        """At ``x [variables]``; minus infinity if all masses are zero."""
        total = self.total(x)
        return (math.log(total) if total > 0 else -math.inf) - float(self.slope @ x)

    def total(self, x: Tensor) -> float:
        """The sum of all terms at ``x``."""
        y = self.variables.of_classes(x)
        (terms,) = self.group.totals([sum(float(term.sums(y)[0].sum()) for term in self.terms)])
        return self.constant + terms

    def around(self, x: Tensor) -> tuple[Tensor, Tensor, float]:
        """The gradient ``[variables]`` of the sum, the diagonal of its second derivative, and the sum, at ``x``."""
        y = self.variables.of_classes(x)
        by_output, by_input = torch.zeros_like(y), torch.zeros_like(y)
        total = self.constant if self.group.rank == 0 or not self.group.holds_parts else 0.0
        for term in self.terms:
            rows, columns = term.sums(y)
            by_output.index_add_(0, term.rows.flatten(), rows.flatten())
            by_input.index_add_(0, term.columns.flatten(), columns.flatten())
            total += float(rows.sum())
        by_output, by_input = self.group.total(torch.stack([by_output, by_input]))
        (total,) = self.group.totals([total])
        gradient = 2 * self.variables.of_variables(by_input - by_output)
        diagonal = 4 * self.variables.of_variables(self.variables.sign * (by_input + by_output))
        return gradient, diagonal, total

    def curvature(self, x: Tensor, direction: Tensor) -> Tensor:
        """The second derivative of the sum at ``x``, times ``direction [variables]``."""
        y, along = self.variables.of_classes(x), self.variables.of_classes(direction)
        change = torch.zeros_like(y)
        for term in self.terms:
            rows, columns = term.products(y, along)
            change.index_add_(0, term.rows.flatten(), -rows.flatten())
            change.index_add_(0, term.columns.flatten(), columns.flatten())
        return 4 * self.variables.of_variables(self.group.total(change))

    def separate_step(self, x: Tensor) -> Tensor:
        """The step ``[variables]`` to the minimum of a separable upper bound, which lowers the function from any ``x``.

        By convexity ``exp(2 (s - t)) <= (exp(4 s) + exp(-4 t)) / 2`` and ``log S <= log S0 + S / S0 - 1``, so that each
        variable has its own sum ``a exp(-4 s) / 2 + b exp(4 s) / 2`` of falling and rising terms, less a line.
        """
        gradient, diagonal, total = self.around(x)
        mass = diagonal / 4
        falling, rising = (mass - gradient / 2) / 2, (mass + gradient / 2) / 2
        least = (ROUNDING * mass).clamp(min=torch.finfo(mass.dtype).tiny)
        falling, rising = torch.maximum(falling, least), torch.maximum(rising, least)
        line = total * self.slope / 2
        root = torch.sqrt(line.square() / 4 + falling * rising)
        up = torch.where(line >= 0, (line / 2 + root) / rising, falling / (root - line / 2))
        return torch.where(mass > 0, up.log() / 4, 0)

    def imbalance(self, x: Tensor) -> float:
        """The largest ``|a - b| / (a + b)`` of a variable, of the sums a and b of its rising and falling terms.

        Both with the slope: zero at the minimum.
        """
        gradient, diagonal, total = self.around(x)
        mass = diagonal / 2
        held = mass > 0
        off = (gradient - total * self.slope).abs()[held] / mass[held]
        return float(off.max()) if len(off) else 0.0
