"""A change of basis applied to parameters: at most two passes over each, with factors gathered once.

A linear weight is multiplied by a vector along its rows and by one along its columns, not by their outer product, which
would have to be computed first. Vectors that are always 1 are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from teleport._quiver.quiver import Freedom, Quiver, Scaled

SHORT = 64
"""Inner loops of fewer elements cost more than a factor for each element."""

CHUNK = 2**17
"""Elements of a large parameter that go through both passes together, while they are in the cache."""


@dataclass
class _Pass:
    """One multiplication of a parameter, viewed as ``[outer, factors, inner]``, without axes of length 1."""

    view: tuple[int, ...]
    inner: bool  # whether there are elements along the last axis of the view that share a factor
    output_class: Tensor  # [factors], classes
    input_class: Tensor


class Multiplications:
    """The multiplications of a quiver's parameters, prepared as one gather and few products per change of basis.

    Args:
        scaled: parameter's name -> its classes.
        freedom: ``[classes]`` of ``Freedom``.
    """

    def __init__(self, scaled: Mapping[str, Scaled], freedom: Tensor) -> None:
        self.scaled = dict(scaled)
        pinned = freedom.cpu() == Freedom.PINNED
        passes: list[_Pass] = []
        self._of: list[list[int]] = []  # the passes of each parameter
        for classes in scaled.values():
            own = _passes(classes.parameter.shape, classes, pinned)
            self._of.append(list(range(len(passes), len(passes) + len(own))))
            passes += own
        none = torch.zeros(0, dtype=torch.int64)
        self._output_class = torch.cat([none, *(each.output_class for each in passes)])
        self._input_class = torch.cat([none, *(each.input_class for each in passes)])
        self._lengths = [len(each.output_class) for each in passes]
        self._layouts = [(each.view, each.inner) for each in passes]

    def moved(self, tau: Tensor) -> list[str]:
        """The names of the parameters that ``tau [classes]`` changes."""
        moves = [bool((piece != 1).any()) for piece in torch.split(self._vectors(tau), self._lengths)]
        return [name for name, own in zip(self.scaled, self._of, strict=True) if any(moves[number] for number in own)]

    @torch.no_grad()
    def apply(self, tau: Tensor, parameters: Sequence[Tensor]) -> None:
        """Multiply the parameters in place, all in one call of torch.

        Args:
            tau: ``[classes]``, float64 on the CPU.
            parameters: in the order of the quiver's, with the same shapes.
        """
        vectors = self._vectors(tau)
        kinds = {(parameter.dtype, parameter.device) for parameter in parameters}
        pieces = {kind: torch.split(_for(vectors, *kind), self._lengths) for kind in kinds}
        tensors: list[Tensor] = []
        factors: list[Tensor] = []
        for classes, parameter, own in zip(self.scaled.values(), parameters, self._of, strict=True):
            if not parameter.is_contiguous():
                tensors.append(parameter)
                factors.append(_for(classes.factors(tau), parameter.dtype, parameter.device))
                continue
            cut = pieces[parameter.dtype, parameter.device]
            products = [_product(parameter, cut[number], *self._layouts[number]) for number in own]
            if len(products) == 2 and parameter.numel() > CHUNK:
                products = _in_chunks(*products)
            for tensor, factor in products:
                tensors.append(tensor)
                factors.append(factor)
        if tensors:
            torch._foreach_mul_(tensors, factors)

    def _vectors(self, tau: Tensor) -> Tensor:
        """The factors of all passes, concatenated."""
        return tau.index_select(0, self._output_class).div_(tau.index_select(0, self._input_class))


def _for(factors: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """In the precision of products of this type: single for half precision."""
    return factors.to(device, torch.promote_types(dtype, torch.float32))


def _product(parameter: Tensor, factors: Tensor, view: tuple[int, ...], inner: bool) -> tuple[Tensor, Tensor]:
    """The parameter and its factors in shapes that broadcast; views are made only if needed."""
    seen = parameter if parameter.shape == view else parameter.view(view)
    return seen, factors[:, None] if inner else factors


_PREPARED: WeakKeyDictionary[Quiver, Multiplications] = WeakKeyDictionary()


def multiplications_of(quiver: Quiver) -> Multiplications:
    """The prepared multiplications of a quiver; prepared once, because a quiver serves many changes of basis."""
    if quiver not in _PREPARED:
        _PREPARED[quiver] = Multiplications(quiver.scaled, quiver.freedom)
    return _PREPARED[quiver]


def _passes(shape: torch.Size, classes: Scaled, pinned: Tensor) -> list[_Pass]:
    """The multiplications of a parameter: rows, then columns, or both at once if both vary along the same axes."""
    sides = []
    for side in (classes.output_class, classes.input_class):
        free = side.cpu().reshape((1,) * (len(shape) - side.dim()) + side.shape)
        sides.append(torch.where(pinned[free], 0, free))
    output_class, input_class = sides
    axes = [{axis for axis, size in enumerate(side.shape) if size > 1} for side in sides]
    ones = torch.zeros((1,) * len(shape), dtype=torch.int64)
    if not (axes[0] <= axes[1] or axes[1] <= axes[0]):
        pairs = [(output_class, ones), (ones, input_class)]
    else:
        pairs = [(output_class, input_class)]
    return [_pass(shape, *pair) for pair in pairs if bool(pair[0].any()) or bool(pair[1].any())]


def _pass(shape: torch.Size, output_class: Tensor, input_class: Tensor) -> _Pass:
    """The view of the parameter with the classes along one axis and long inner loops along the other."""
    varying = [axis for axis in range(len(shape)) if max(output_class.shape[axis], input_class.shape[axis]) > 1]
    first, end = (varying[0], varying[-1] + 1) if varying else (0, 0)
    outer, inner = math.prod(shape[:first]), math.prod(shape[end:])
    if 1 < inner < SHORT:
        end, inner = len(shape), 1
    own = (1,) * first + tuple(shape[first:end]) + (1,) * (len(shape) - end)
    classes = [side.expand(own).reshape(-1) for side in (output_class, input_class)]
    view = [size for size, kept in ((outer, outer > 1), (len(classes[0]), True), (inner, inner > 1)) if kept]
    return _Pass(tuple(view), inner > 1, *classes)


def _in_chunks(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Both products of a parameter, per block of rows if the other product is along another axis."""
    for (rows, of_rows), (columns, of_columns) in ((first, second), (second, first)):
        count = len(of_rows)
        if rows.dim() == 2 == of_rows.dim() and len(columns) == count and columns.dim() > of_columns.dim():
            size = max(1, CHUNK * count // rows.numel())
            parts = [slice(start, start + size) for start in range(0, count, size)]
            return [product for part in parts for product in ((rows[part], of_rows[part]), (columns[part], of_columns))]
    return [first, second]
