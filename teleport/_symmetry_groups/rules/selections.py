"""Functions that select elements along axes."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from teleport._symmetry_groups.axis import ONE, Axis, fixed, size_of
from teleport._symmetry_groups.axis_state import Axes
from teleport._symmetry_groups.later import Later
from teleport._symmetry_groups.rules.table import AxisCall, axis_rule, named
from teleport._symmetry_groups.rules.turns import part, part_of_slice


@axis_rule(*named("chunk", "split", "tensor_split", "split_with_sizes", "unbind"))
def _pieces(call: AxisCall, input: Tensor, *options: Any, **others: Any) -> list[Axes] | list[Axes | Later]:
    unbinds = getattr(call.func, "__name__", "") == "unbind"
    at = 0 if unbinds else 1
    dim = others.get("dim", options[at] if len(options) > at else 0)
    axes = list(call.axes(input))
    dim %= len(axes)
    if unbinds:
        if len(call.result) == 2:
            return [part(call, input, dim, which, "axis", lambda: _taken(call, input, dim)) for which in (0, 1)]
        return [_taken(call, input, dim)] * len(call.result)
    if len(call.result) == 2 and call.result[0].shape == call.result[1].shape and size_of(axes[dim]) > 2:
        half = call.result[0].shape[dim]
        ends = [(0, half), (half, 2 * half)]
        return [part(call, input, dim, at, "halves", partial(_span, call, input, dim, *ends[at])) for at in (0, 1)]
    pieces, start = [], 0
    for made in call.result:
        pieces.append(call.cut(axes[dim], start, start + made.shape[dim]))
        start += made.shape[dim]
    axes = list(call.axes(input))
    return [(*axes[:dim], piece, *axes[dim + 1 :]) for piece in pieces]


def _taken(call: AxisCall, input: Tensor, dim: int) -> Axes:
    """The axes of one element along an axis."""
    call.pin([call.axes(input)[dim]], "which takes it apart")
    kept = call.axes(input)
    return kept[:dim] + kept[dim + 1 :]


def _span(call: AxisCall, input: Tensor, dim: int, start: int, stop: int) -> Axes:
    """The axes of some neighbouring elements along an axis."""
    piece = call.cut(call.axes(input)[dim], start, stop)
    axes = call.axes(input)
    return (*axes[:dim], piece, *axes[dim + 1 :])


@axis_rule(*named("narrow"))
def _narrow(call: AxisCall, input: Tensor, dim: int, start: Any, length: int) -> Axes:
    axes = list(call.axes(input))
    start = int(start) % input.shape[dim]
    axes[dim] = call.cut(axes[dim], start, start + length)
    return tuple(axes)


@axis_rule(*named("select"))
def _select(call: AxisCall, input: Tensor, dim: int, index: Any) -> Axes:
    axes = list(call.axes(input))
    call.pin([axes.pop(dim)], "which selects units")
    return tuple(axes)


@axis_rule(Tensor.__getitem__)
def _getitem(call: AxisCall, input: Tensor, index: Any) -> Axes | Later | None:
    last = index[-1] if isinstance(index, tuple) and index else index
    before = index[:-1] if isinstance(index, tuple) else ()
    whole = all(each is Ellipsis or (isinstance(each, slice) and each == slice(None)) for each in before)
    if whole and (Ellipsis in before or len(before) == input.dim() - 1):
        found = part_of_slice(input.shape[-1], last)
        if found is None and input.shape[-1] == 2 and type(last) is int and last in (0, 1):
            found = last, "axis"
        if found is not None:
            return part(call, input, -1, *found, lambda: _elements(call, input, index) or call.axes(input))
    return _elements(call, input, index)


def _elements(call: AxisCall, input: Tensor, index: Any) -> Axes | None:
    places = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(each, (list, bool, range)) or not _plain(each) for each in places):
        return None
    if sum(isinstance(each, Tensor) for each in places) > 1:
        return None
    used = sum(each is not None and each is not Ellipsis for each in places)
    if Ellipsis not in [each for each in places if not isinstance(each, Tensor)]:
        places.append(Ellipsis)
    waiting = list(call.axes(input))
    result: list[Axis] = []
    for each in places:
        if each is None:
            result.append(ONE)
        elif each is Ellipsis:
            count = input.dim() - used
            result += [waiting.pop(0) for _ in range(count)]
        else:
            result += _indexed(call, waiting.pop(0), each)
    return tuple(result)


def _plain(index: Any) -> bool:
    if isinstance(index, Tensor):
        return not index.is_floating_point() and (index.dtype != torch.bool)
    return index is None or index is Ellipsis or isinstance(index, (int, slice))


def _indexed(call: AxisCall, axis: Axis, index: Any) -> list[Axis]:
    """The axes that an index leaves of one."""
    if isinstance(index, slice):
        start, stop, step = index.indices(size_of(axis))
        if step == 1:
            return [call.cut(axis, start, max(start, stop))]
        call.pin([axis], "which selects units")
        return [fixed(len(range(start, stop, step)))]
    call.pin([axis], "which selects units")
    if isinstance(index, Tensor):
        call.pin(call.axes(index), "as an index")
        return [fixed(size) for size in index.shape]
    return []


@axis_rule(*named("index_select"))
def _index_select(call: AxisCall, input: Tensor, dim: int, index: Tensor) -> Axes:
    axes = list(call.axes(input))
    call.pin(call.axes(index), "as an index")
    call.pin([axes[dim]], "which selects units")
    axes[dim] = fixed(len(index))
    return tuple(axes)
