"""Permutations with signs of a tensor, in place: one gather per axis, through memory that is taken once.

All actions on the factors of one axis are one order and one sign per element of the axis, if no order depends on the
units of another axis. Rows are gathered into a buffer, and from there the other axis back into the tensor. Nothing is
computed but changes of sign, so the values are exact in their own precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from teleport._symmetry_groups.axis_action import AxisAction
from teleport._symmetry_groups.families import Block

CHUNK = 2**17
"""Elements that are copied and gathered together, if rows keep their places."""


@dataclass(frozen=True)
class _Axis:
    """What happens to the elements along one axis.

    Attributes:
        order: element ``i`` becomes what ``order[i]`` was; ``None`` for no change.
        signs: of the elements after the gather; ``None`` if all are 1.
        signs_before: of the elements before it.
    """

    order: Tensor | None
    signs: Tensor | None
    signs_before: Tensor | None


class Gathers:
    """Applies permutations with signs of one element of a group to parts of tensors."""

    def __init__(self) -> None:
        self._axes: dict[object, _Axis] = {}
        self._buffers: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def apply(self, part: Tensor, block: Block, actions: Sequence[AxisAction]) -> bool:
        """Let actions act on a part of a tensor in place; whether it was done.

        Args:
            part: a view, one axis per axis of the block.
            block: its factors.
            actions: in the order in which they act, the same ones in each call. With a matrix, with an order that
                depends on another axis, or if the part is not contiguous, nothing is done.
        """
        if any(each.matrix is not None for each in actions) or not part.is_contiguous():
            return False
        if part.dim() == 0 or not all(_separate(block, each) for each in actions):
            return False
        data = part.detach()
        axes = [self._axis(data, block, axis, actions) for axis in range(data.dim())]
        gathered = [axis for axis, each in enumerate(axes) if each.order is not None]
        if not gathered:
            _multiply(data, [each.signs for each in axes])
        elif gathered == [0]:
            values = self._first_axis(data, axes[0])
            _multiply(values, [each.signs for each in axes])
            data.copy_(values)
        elif len(gathered) == 1 or (len(gathered) == 2 and gathered[0] == 0):
            self._last_axis(data, axes, gathered[-1])
        else:
            values = data.clone()
            _multiply(values, [each.signs_before for each in axes])
            for axis in gathered:
                values = values.index_select(axis, axes[axis].order)  # type: ignore[arg-type]
            data.copy_(values)
        return True

    def _last_axis(self, data: Tensor, axes: Sequence[_Axis], last: int) -> None:
        """Gather along the first axis, if it has an order, and along the last one back into the tensor."""
        order, signs = axes[last].order, [axes[0].signs, *(each.signs_before for each in axes[1:])]
        assert order is not None
        if axes[0].order is not None:
            values = self._first_axis(data, axes[0])
            _multiply(values, signs)
            torch.index_select(values, last, order, out=data)
            return
        length = len(data) if data.device.type != "cpu" else max(1, CHUNK * len(data) // max(1, data.numel()))
        for start in range(0, len(data), length):  # blocks of rows that stay in the cache between copy and gather
            rows = data[start : start + length]
            values = self._buffer(rows).copy_(rows)
            _multiply(values, [None if signs[0] is None else signs[0][start : start + length], *signs[1:]])
            torch.index_select(values, last, order, out=rows)

    def _first_axis(self, data: Tensor, axis: _Axis) -> Tensor:
        """The rows in their order, in the buffer."""
        assert axis.order is not None
        return torch.index_select(data, 0, axis.order, out=self._buffer(data))

    def _buffer(self, like: Tensor) -> Tensor:
        """Memory of the shape of a tensor, which the next call uses again."""
        key = like.dtype, like.device
        if key not in self._buffers or self._buffers[key].numel() < like.numel():
            self._buffers[key] = torch.empty(like.numel(), dtype=like.dtype, device=like.device)
        return self._buffers[key][: like.numel()].view(like.shape)

    def _axis(self, data: Tensor, block: Block, axis: int, actions: Sequence[AxisAction]) -> _Axis:
        places = [place for place, each in enumerate(block.axes) if each == axis]
        sizes, variables = (tuple(each[place] for place in places) for each in (block.sizes, block.variables))
        dual = tuple(block.dual[place] for place in places)
        key = sizes, variables, dual, data.dtype, data.device
        if key not in self._axes:
            own = Block((block.spans[axis],), sizes, variables, dual, (0,) * len(places))
            self._axes[key] = _axis_of(own, [each for each in actions if each.variable in variables], data)
        return self._axes[key]


def _axis_of(block: Block, actions: Sequence[AxisAction], like: Tensor) -> _Axis:
    """The order and the signs that actions on one axis make."""
    if not actions:
        return _Axis(None, None, None)
    order = torch.arange(block.spans[0][1]).reshape(block.sizes)
    signs = torch.ones(block.sizes, dtype=torch.float64)
    for each in actions:
        order, signs = replace(each, signs=None).on(order, block), each.on(signs, block)
    order, signs = order.flatten(), signs.flatten().to(like)
    before = signs.new_empty(signs.shape).index_copy_(0, order.to(like.device), signs)
    moves, flips = not bool((order == torch.arange(len(order))).all()), bool((signs != 1).any())
    return _Axis(order.to(like.device) if moves else None, signs if flips else None, before if flips else None)


def _separate(block: Block, action: AxisAction) -> bool:
    """Whether an action on each axis is the same for all units of the other axes."""
    for place, variable in enumerate(block.variables):
        if variable == action.variable:
            found = (block.companion(place, each) for each in action.companions)
            if any(other is not None and block.axes[other] != block.axes[place] for other in found):
                return False
    return True


def _multiply(values: Tensor, signs: Sequence[Tensor | None]) -> None:
    """Multiply by the signs of each axis, in place."""
    for axis, each in enumerate(signs):
        if each is not None:
            values.mul_(each.reshape(-1, *[1] * (values.dim() - axis - 1)))
