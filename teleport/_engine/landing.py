"""Where along a path the gradient norm meets the cap, from the values seen so far.

If the forward pass stays as it is, every operation of the backward pass is linear in the incoming gradient. The squared
gradient norm along a line is then a polynomial in the length: of degree 2 if one layer moves, 4 if two layers in a row
do, and so on. It is interpolated through its value and slope at the start and the values seen, so that the second or
third evaluation lands on the cap. On other paths the interpolation is an approximation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

SPREAD = 4.5
"""The square of the change of the gradient per length, in units of what its slope alone explains.

Between 2 and 30 on networks of 11 kinds. It sets the first length of the first path only.
"""

NODES = 5
"""The largest number of values besides the start that the polynomial goes through."""


class Shape:
    """The squared norm along the last path that met the cap, in units in which other paths of the event look the same.

    The ratio of the squared norm to that at the start is taken as a function of the length in units of ``2 S / slope``,
    with S the squared norm at the start and its slope there.
    """

    def __init__(self) -> None:
        self._curve: _Newton | None = None
        self._end, self._ratio, self._spread = 0.0, 1.0, SPREAD

    @property
    def known(self) -> bool:
        """Whether a path met the cap."""
        return self._curve is not None

    def learn(self, ratios: dict[float, float], end: float) -> None:
        """Take the ratios by length of a path that met the cap at length ``end``."""
        spread = (ratios[end] - 1 - 2 * end) / end**2
        if not (math.isfinite(spread) and spread > 0):
            return
        lengths = sorted(sorted(ratios, key=lambda length: abs(length - end))[:NODES])
        nodes = [0.0, 0.0, *(length / end for length in lengths)]
        self._curve = _Newton(nodes, [1.0, 1.0, *(ratios[length] for length in lengths)], 2 * end, end)
        self._end, self._ratio, self._spread = end, ratios[end], spread

    def length(self, ratio: float) -> float:
        """The length at which the squared norm is ``ratio`` times that at the start."""
        if self._curve is not None and ratio < self._ratio:
            return _crossing(self._curve, ratio, 0.0, self._end)
        return (math.sqrt(1 + self._spread * max(0.0, ratio - 1)) - 1) / self._spread


class SquaredNormAlongPath:
    """``1/2 |g|^2`` along a path, from what is known of it.

    Args:
        norm: ``|g|`` at length 0.
        slope: the derivative of ``1/2 |g|^2`` by the length there, if it is known and above 0.
        shape: of earlier paths.
    """

    def __init__(self, norm: float, slope: float | None, shape: Shape | None = None) -> None:
        self.start = norm * norm / 2
        self.shape = shape or Shape()
        self.slope = slope if slope is not None and slope > 0 and math.isfinite(slope) else None
        self.values: dict[float, float] = {}

    def add(self, length: float, norm: float) -> None:
        """The norm at one more length; values that are not finite are left out."""
        value = norm * norm / 2
        if length > 0 and math.isfinite(value):
            self.values[length] = value

    def first(self, norm: float) -> float:
        """A length near which ``norm`` is to be expected, from the slope and earlier paths; infinite if unknown."""
        if self.slope is None or not math.isfinite(norm) or self.start <= 0:
            return math.inf
        return self._unit * self.shape.length(norm * norm / (2 * self.start))

    def landed(self, length: float) -> None:
        """Take this path as the shape of the next ones; it met the cap at that length."""
        if self.slope is not None and self.start > 0:
            ratios = {at / self._unit: value / self.start for at, value in self.values.items()}
            self.shape.learn(ratios, length / self._unit)

    @property
    def _unit(self) -> float:
        assert self.slope is not None
        return 2 * self.start / self.slope

    def length_at(self, norm: float, low: float, high: float) -> float | None:
        """The length between ``low`` and ``high`` with that norm; ``high`` if the norm is below it on the way.

        ``None`` if too little is known to tell: neither a slope nor two values, or a norm of 0.
        """
        if norm <= 0 or not self.values or (self.slope is None and len(self.values) < 2):
            return None
        target = norm * norm / 2
        if len(self.values) == 1 and self.shape.known and self.start > 0:
            ((length, value),) = self.values.items()
            if value > self.start:  # earlier paths with their lengths stretched to meet this value
                found = length * self.shape.length(target / self.start) / self.shape.length(value / self.start)
                return min(max(found, low), high)
        polynomial = self._polynomial(target, high)
        return high if polynomial(high) <= target else _crossing(polynomial, target, low, high)

    def _polynomial(self, target: float, scale: float) -> _Newton:
        """Through the start and the values nearest to ``target``, in their logarithm."""
        near = sorted(self.values, key=lambda length: abs(math.log(max(self.values[length], 1e-300) / target)))
        lengths = sorted(near[:NODES])
        nodes = [0.0, *(length / scale for length in lengths)]
        values = [self.start, *(self.values[length] for length in lengths)]
        if self.slope is not None:
            return _Newton([0.0, *nodes], [self.start, *values], self.slope * scale, scale)
        return _Newton(nodes, values, None, scale)


def _crossing(curve: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Where ``curve`` passes ``target`` between ``low`` and ``high``."""
    for _ in range(60):
        middle = (low + high) / 2
        if curve(middle) <= target:
            low = middle
        else:
            high = middle
    return low


class _Newton:
    """The interpolation polynomial in Newton's form; a node that comes twice at the start has the slope there."""

    def __init__(self, nodes: list[float], values: list[float], slope: float | None, scale: float) -> None:
        self.nodes, self.scale = nodes, scale
        column, self.coefficients = list(values), [values[0]]
        for order in range(1, len(nodes)):
            column = [
                slope
                if slope is not None and nodes[place] == nodes[place + order]
                else (column[place + 1] - column[place]) / (nodes[place + order] - nodes[place])
                for place in range(len(column) - 1)
            ]
            self.coefficients.append(column[0])

    def __call__(self, length: float) -> float:
        at, value = length / self.scale, 0.0
        for node, coefficient in zip(reversed(self.nodes), reversed(self.coefficients), strict=True):
            value = value * (at - node) + coefficient
        return value
