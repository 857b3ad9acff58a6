"""The positive factors of channels that bring one network nearest to another, or to its least norm.

Both are sums over elements of ``A exp(2 x) - 2 B exp(x)``, where x is the difference of the logarithms of the factors
of an element's output and input channel, and are minimised by Newton steps on all factors at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from teleport._quiver.quiver import Freedom, Quiver

STEPS = 100
LARGEST_STEP = 2.0
"""Of the logarithm of a factor, in one step."""

NEAR = 1e-6
"""A shorter step is the last, and the error after it of its square."""

LARGEST_FACTOR = 20.0
"""Of the logarithm of a factor in all: a channel whose weights on one side are 0 has no least norm."""


class Scales:
    """The factors of a network's quiver as one vector of logarithms.

    Args:
        quiver: of the network.
        held: classes of channels whose factor stays 1.
    """

    def __init__(self, quiver: Quiver, held: Collection[int] = ()) -> None:
        count = len(quiver.freedom)
        self.quiver = quiver
        classes = torch.arange(count)
        inverse = quiver.inverse.cpu()
        second = (inverse >= 0) & (inverse < classes)
        self.of = torch.where(second, inverse, classes)  # the class whose logarithm a class carries
        self.sign = torch.where(second, -1.0, 1.0).double()
        free = quiver.freedom.cpu() != Freedom.PINNED
        for each in held:
            free[[each, *([int(inverse[each])] if inverse[each] >= 0 else [])]] = False
        self.sign = torch.where(free, self.sign, 0.0)
        self.shapes: dict[str, torch.Size] = {}
        ends: list[tuple[Tensor, Tensor]] = []
        for name, scaled in quiver.scaled.items():
            output, input_ = torch.broadcast_tensors(scaled.output_class.cpu(), scaled.input_class.cpu())  # type: ignore[no-untyped-call]
            shape = (1,) * (scaled.parameter.dim() - output.dim()) + tuple(output.shape)
            self.shapes[name] = torch.Size(shape)
            ends.append((output.flatten(), input_.flatten()))
        none = torch.zeros(0, dtype=torch.int64)
        self.output = torch.cat([none, *(one for one, _ in ends)])
        self.input = torch.cat([none, *(other for _, other in ends)])

    @property
    def free(self) -> bool:
        """Whether any factor may differ from 1."""
        return bool(self.sign.any())

    def tau(self, logarithms: Tensor) -> Tensor:
        """The factor of each class."""
        return (self.sign * logarithms[self.of]).exp()

    def balanced(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The factors ``[classes]`` of least norm of the parameters. The problem is convex, and the minimum unique.

        Args:
            tensors: the network's parameters, float64, by name.
        """
        squares = self._sums({name: tensors[name].square() for name in self.shapes})
        return self._minimised(squares, torch.zeros_like(squares), convex=True)

    def nearest(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Tensor:
        """The factors ``[classes]`` that bring ``second`` near to ``first``, starting at 1.

        Args:
            first, second: parameters, float64, by name.
        """
        squares = self._sums({name: second[name].square() for name in self.shapes})
        products = self._sums({name: first[name] * second[name] for name in self.shapes})
        return self._minimised(squares, products, convex=False)

    def _sums(self, values: Mapping[str, Tensor]) -> Tensor:
        """Values summed over the elements of a parameter that carry the same two classes."""
        sums = [each.cpu().sum_to_size(self.shapes[name]).flatten() for name, each in values.items()]
        return torch.cat([torch.zeros(0, dtype=torch.float64), *sums])

    def _minimised(self, squares: Tensor, products: Tensor, convex: bool) -> Tensor:
        """The factors of the least ``sum(A exp(2 x) - 2 B exp(x))``, with A = ``squares`` and B = ``products``."""
        logarithms = torch.zeros(len(self.sign), dtype=torch.float64)
        value = self._value(squares, products, logarithms)
        for _ in range(STEPS):
            x = self._differences(logarithms)
            large = squares * (2 * x).exp()
            gradient = self._gathered(large - products * x.exp())
            weights = 2 * large if convex else large  # Newton's, or Gauss and Newton's for a sum of squares
            step = self._solved(weights, -gradient)
            longest = float(step.abs().max())
            if longest < NEAR:  # the value no longer tells the difference
                return self.tau(logarithms + step)
            if longest > LARGEST_STEP:
                step = step * (LARGEST_STEP / longest)
            for _ in range(30):
                trial = (logarithms + step).clamp(-LARGEST_FACTOR, LARGEST_FACTOR)
                reached = self._value(squares, products, trial)
                if reached < value:
                    break
                step = step / 2
            else:
                break
            logarithms, value = trial, reached
        return self.tau(logarithms)

    def _value(self, squares: Tensor, products: Tensor, logarithms: Tensor) -> float:
        x = self._differences(logarithms)
        return float((squares * (2 * x).exp() - 2 * products * x.exp()).sum())

    def _differences(self, logarithms: Tensor) -> Tensor:
        carried = self.sign * logarithms[self.of]
        return carried[self.output] - carried[self.input]

    def _gathered(self, values: Tensor) -> Tensor:
        """The adjoint of :meth:`_differences`."""
        found = torch.zeros_like(self.sign).index_add(0, self.output, values).index_add(0, self.input, -values)
        return torch.zeros_like(self.sign).index_add(0, self.of, self.sign * found)

    def _solved(self, weights: Tensor, right: Tensor) -> Tensor:
        """The step of the normal equations with these weights, by conjugate gradients with a diagonal scaling."""

        def product(vector: Tensor) -> Tensor:
            return self._gathered(weights * self._differences(vector)) + ridge * vector

        ends = torch.zeros_like(self.sign).index_add(0, self.output, weights).index_add(0, self.input, weights)
        diagonal = torch.zeros_like(self.sign).index_add(0, self.of, self.sign.abs() * ends)
        ridge = 1e-14 * float(diagonal.max())
        return conjugate_gradients(product, right, diagonal + ridge)


def conjugate_gradients(product: Callable[[Tensor], Tensor], right: Tensor, diagonal: Tensor) -> Tensor:
    """The solution of ``product(x) = right``, to a residual of 1e-12 or after 500 products (Hestenes, Stiefel 1952)."""
    diagonal = torch.where(diagonal > 0, diagonal, 1.0)
    found, residual = torch.zeros_like(right), right
    scaled = residual / diagonal
    direction, old = scaled, float(residual @ scaled)
    start = old
    for _ in range(500):
        if not old > 1e-24 * start:
            break
        image = product(direction)
        curvature = float(direction @ image)
        if not curvature > 0:
            break
        length = old / curvature
        found = found + length * direction
        residual = residual - length * image
        scaled = residual / diagonal
        new = float(residual @ scaled)
        direction, old = scaled + (new / old) * direction, new
    return found
