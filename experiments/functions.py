"""Test functions of two variables for optimizers, with the group that acts on their level sets.

Each is a sum of two squares, ``f = u^2 + v^2``, of coordinates that determine the point. A rotation of ``(u, v)`` about
the origin leaves ``f`` unchanged, so that rotations act on its level sets, each of which is one orbit (Zhao et al.
2022). The code is plain arithmetic: it applies to tensors, arrays and numbers, and importing it is cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Pair = tuple[Any, Any]


@dataclass(frozen=True)
class SumOfSquares:
    """A function ``f(x, y) = u^2 + v^2``.

    Attributes:
        squared: ``(x, y) -> (u, v)``, one to one and onto.
        point: the inverse, ``(u, v) -> (x, y)``.
        minimum: the point ``(x, y)`` where ``f`` is 0.
    """

    squared: Callable[[Any, Any], Pair]
    point: Callable[[Any, Any], Pair]
    minimum: tuple[float, float]

    def __call__(self, x: Any, y: Any) -> Any:
        """``f(x, y)``, elementwise."""
        u, v = self.squared(x, y)
        return u * u + v * v

    def rotated(self, x: Any, y: Any, cosine: Any, sine: Any) -> Pair:
        """The point whose ``(u, v)`` are those of ``(x, y)``, rotated by an angle given as its cosine and sine."""
        u, v = self.squared(x, y)
        return self.point(cosine * u - sine * v, sine * u + cosine * v)


FUNCTIONS = {
    # (1 - x)^2 + 100 (y - x^2)^2
    "rosenbrock": SumOfSquares(
        squared=lambda x, y: (10 * (y - x * x), x - 1),
        point=lambda u, v: (v + 1, u / 10 + (v + 1) * (v + 1)),
        minimum=(1.0, 1.0),
    ),
    # (x + 2 y - 7)^2 + (2 x + y - 5)^2
    "booth": SumOfSquares(
        squared=lambda x, y: (x + 2 * y - 7, 2 * x + y - 5),
        point=lambda u, v: ((2 * v - u + 3) / 3, (2 * u - v + 9) / 3),
        minimum=(1.0, 3.0),
    ),
    # x^2 + 9 y^2
    "ellipse": SumOfSquares(
        squared=lambda x, y: (x, 3 * y),
        point=lambda u, v: (u, v / 3),
        minimum=(0.0, 0.0),
    ),
}
"""Function by name, which is also the name of the data set and of the group action on it."""
