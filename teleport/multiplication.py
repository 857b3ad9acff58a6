"""A change of basis applied to parameters: at most two passes over each, with factors that are gathered once.

A linear weight is multiplied by a vector along its rows and by one along its columns, not by their outer product, which
would have to be made first. Vectors that are 1 for every change of basis are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from teleport.quiver import Freedom, Scaled

SHORT = 64
"""Inner loops of fewer elements cost more than a factor for each element."""

CHUNK = 2**17
"""Elements of a large parameter that go through both passes together, while they are in the cache."""


@dataclass
class _Pass:
    """One multiplication of a parameter, seen as ``[outer, factors, inner]``, along its middle axis."""

    parameter: int
    view: tuple[int, int, int]
    numerator: Tensor  # [factors], classes
    denominator: Tensor


class Multiplications:
    """How a quiver's parameters are multiplied, prepared so that a change of basis is one gather and few products.

    Args:
        scaled: parameter's name -> its classes.
        freedom: ``[classes]`` of :class:`teleport.quiver.Freedom`.
    """

    def __init__(self, scaled: Mapping[str, Scaled], freedom: Tensor) -> None:
        self.scaled = dict(scaled)
        pinned = freedom.cpu() == Freedom.PINNED
        self._passes = [
            each
            for number, classes in enumerate(scaled.values())
            for each in _passes(number, classes.parameter.shape, classes, pinned)
        ]
        none = torch.zeros(0, dtype=torch.int64)
        self._numerator = torch.cat([none, *(each.numerator for each in self._passes)])
        self._denominator = torch.cat([none, *(each.denominator for each in self._passes)])
        self._lengths = [len(each.numerator) for each in self._passes]

    def moved(self, tau: Tensor) -> list[str]:
        """The names of the parameters that ``tau [classes]`` changes."""
        pieces = self._vectors(tau).split(self._lengths)
        pairs = zip(self._passes, pieces, strict=True)
        moved = {each.parameter for each, piece in pairs if bool((piece != 1).any())}
        return [name for number, name in enumerate(self.scaled) if number in moved]

    @torch.no_grad()
    def apply(self, tau: Tensor, parameters: Sequence[Tensor]) -> None:
        """Multiply the parameters in place.

        Args:
            tau: ``[classes]``, float64 on the CPU.
            parameters: in the order of the quiver's, with the same shapes.
        """
        vectors = self._vectors(tau)
        kinds = {(parameter.dtype, parameter.device) for parameter in parameters}
        pieces = {kind: _for(vectors, *kind).split(self._lengths) for kind in kinds}
        products: dict[int, list[tuple[Tensor, Tensor]]] = {}
        for number, each in enumerate(self._passes):
            parameter = parameters[each.parameter]
            if parameter.is_contiguous():
                factors = pieces[parameter.dtype, parameter.device][number]
                product = parameter.view(each.view), factors.view(1, -1, 1)
                products.setdefault(each.parameter, []).append(product)
        tensors, factors = [], []
        for number, (classes, parameter) in enumerate(zip(self.scaled.values(), parameters, strict=True)):
            if not parameter.is_contiguous():
                parameter.mul_(_for(classes.factors(tau), parameter.dtype, parameter.device))
                continue
            pairs = products.get(number, [])
            if len(pairs) == 2 and parameter.numel() > CHUNK:
                pairs = _in_chunks(*pairs)
            for tensor, factor in pairs:
                tensors.append(tensor)
                factors.append(factor)
        if tensors:
            torch._foreach_mul_(tensors, factors)

    def _vectors(self, tau: Tensor) -> Tensor:
        """The factors of all passes, one after the other."""
        return tau.index_select(0, self._numerator).div_(tau.index_select(0, self._denominator))


def _for(factors: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """In the precision that products of this type are computed in: single, where it is a half."""
    return factors.to(device, torch.promote_types(dtype, torch.float32))


def _passes(number: int, shape: torch.Size, classes: Scaled, pinned: Tensor) -> list[_Pass]:
    """How a parameter is multiplied: rows, then columns, or both at once where both vary along the same axes."""
    sides = []
    for side in (classes.numerator, classes.denominator):
        free = side.cpu().reshape((1,) * (len(shape) - side.dim()) + side.shape)
        sides.append(torch.where(pinned[free], 0, free))
    numerator, denominator = sides
    axes = [{axis for axis, size in enumerate(side.shape) if size > 1} for side in sides]
    ones = torch.zeros((1,) * len(shape), dtype=torch.int64)
    if not (axes[0] <= axes[1] or axes[1] <= axes[0]):
        pairs = [(numerator, ones), (ones, denominator)]
    else:
        pairs = [(numerator, denominator)]
    return [_pass(number, shape, *pair) for pair in pairs if bool(pair[0].any()) or bool(pair[1].any())]


def _pass(number: int, shape: torch.Size, numerator: Tensor, denominator: Tensor) -> _Pass:
    """The view of the parameter in which the classes lie along one axis, and long loops along the other."""
    whole = torch.broadcast_shapes(numerator.shape, denominator.shape)
    varying = [axis for axis, size in enumerate(whole) if size > 1]
    first, end = (varying[0], varying[-1] + 1) if varying else (0, 0)
    outer, inner = math.prod(shape[:first]), math.prod(shape[end:])
    if 1 < inner < SHORT:
        end, inner = len(shape), 1
    own = (1,) * first + tuple(shape[first:end]) + (1,) * (len(shape) - end)
    classes = [side.expand(own).reshape(-1) for side in (numerator, denominator)]
    return _Pass(number, (outer, len(classes[0]), inner), *classes)


def _in_chunks(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Both products of a parameter, block of rows by block of rows where one is along its rows."""
    (rows, of_rows), (columns, of_columns) = sorted((first, second), key=lambda pair: len(pair[0]))
    count = len(columns)
    if rows.shape[:2] != (1, count):
        return [first, second]
    size = max(1, CHUNK * count // rows.numel())
    chunks = []
    for start in range(0, count, size):
        part = slice(start, start + size)
        chunks += [(rows[:, part], of_rows[:, part]), (columns[part], of_columns)]
    return chunks
