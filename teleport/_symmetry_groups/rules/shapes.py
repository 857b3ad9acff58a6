"""Functions that rearrange elements, select among them or put them side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from teleport._symmetry_groups.axis import ONE, Axis, Level, fixed, size_of
from teleport._symmetry_groups.axis_state import Axes
from teleport._symmetry_groups.rules.table import AXIS_RULES, AxisCall, AxisRule, axis_rule, named
from teleport._tracing.ownership import tensors_in

RESHAPES = ("flatten", "reshape", "view", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as", "ravel")
"""Their result holds the same elements in the same order."""

PERMUTES = ("transpose", "permute", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "adjoint")
"""Their result holds the same axes in another order."""


@axis_rule(*named(*RESHAPES))
def _reshape(call: AxisCall, input: Tensor, *options: Any, **others: Any) -> Axes | None:
    if any(isinstance(option, torch.dtype) for option in (*options, *others.values())):
        return None
    for other in tensors_in((options, others)):
        call.axes(other)  # of which it reads the shape alone
    return reshaped(call, call.axes(input), call.result.shape)


def reshaped(call: AxisCall, axes: Sequence[Axis], shape: Sequence[int]) -> Axes:
    """The axes of a tensor that is reshaped: blocks of axes of the same number of elements are flattened and split."""
    waiting = [axis for axis in axes if size_of(axis) > 1]
    result: list[Axis] = []
    place = 0
    while place < len(shape):
        if shape[place] == 1:
            result.append(ONE)
            place += 1
            continue
        block, count, sizes = [waiting.pop(0)], 0, [shape[place]]
        count = size_of(block[0])
        place += 1
        while count != math.prod(sizes):
            if count < math.prod(sizes):
                block.append(waiting.pop(0))
                count *= size_of(block[-1])
            else:
                sizes.append(shape[place])
                place += 1
        flat = call.product(*block) if len(block) > 1 else block[0]
        result += call.split(flat, *sizes)
    return tuple(result)


def _by_place(function: Callable[..., Any]) -> AxisRule:
    def permute(call: AxisCall, input: Tensor, *options: Any, **others: Any) -> Axes:
        axes = call.axes(input)
        places = function(torch.empty([place + 2 for place in range(len(axes))], device="meta"), *options, **others)
        return tuple(axes[size - 2] for size in places.shape)

    return permute


for _function in named(*PERMUTES):
    AXIS_RULES[_function] = _by_place(_function)
for _property in (Tensor.T, Tensor.mT):
    AXIS_RULES[_property.__get__] = _by_place(_property.__get__)  # type: ignore[attr-defined]


@axis_rule(*named("expand", "broadcast_to", "expand_as"))
def _expand(call: AxisCall, input: Tensor, *options: Any, **others: Any) -> Axes:
    for other in tensors_in((options, others)):
        call.axes(other)  # of which it reads the shape alone
    return _expanded(call, call.axes(input), call.result.shape)


def _expanded(call: AxisCall, axes: Axes, shape: Sequence[int]) -> Axes:
    copies = call.state.variables.copies
    axes = (ONE,) * (len(shape) - len(axes)) + axes
    return tuple(axis if size_of(axis) == size else copies(size) for axis, size in zip(axes, shape, strict=True))


@axis_rule(*named("repeat_interleave"))
def _repeat_each(call: AxisCall, input: Tensor, repeats: Any, dim: int | None = None, **others: Any) -> Axes | None:
    """Each element along an axis several times in a row."""
    if not isinstance(repeats, int) or dim is None:
        return None
    axes = list(call.axes(input))
    axes[dim] = call.product(axes[dim], call.state.variables.copies(repeats))
    return tuple(axes)


@axis_rule(*named("repeat", "tile"))
def _repeat(call: AxisCall, input: Tensor, *sizes: Any) -> Axes | None:
    """All elements along an axis several times, where it has a length of 1."""
    axes = (ONE,) * (call.result.dim() - input.dim()) + call.axes(input)
    if any(size_of(axis) not in (1, size) for axis, size in zip(axes, call.result.shape, strict=True)):
        return None
    return _expanded(call, axes, call.result.shape)


@axis_rule(*named("chunk", "split", "tensor_split", "split_with_sizes", "unbind"))
def _pieces(call: AxisCall, input: Tensor, *options: Any, **others: Any) -> list[Axes]:
    unbinds = getattr(call.func, "__name__", "") == "unbind"
    at = 0 if unbinds else 1
    dim = others.get("dim", options[at] if len(options) > at else 0)
    axes = list(call.axes(input))
    dim %= len(axes)
    if unbinds:
        call.pin([axes[dim]], "which takes it apart")
        kept = call.axes(input)
        return [kept[:dim] + kept[dim + 1 :] for _ in call.result]
    pieces, start = [], 0
    for made in call.result:
        pieces.append(call.cut(axes[dim], start, start + made.shape[dim]))
        start += made.shape[dim]
    axes = list(call.axes(input))
    return [(*axes[:dim], piece, *axes[dim + 1 :]) for piece in pieces]


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
def _getitem(call: AxisCall, input: Tensor, index: Any) -> Axes | None:
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


@axis_rule(*named("cat", "concat", "concatenate"))
def _cat(call: AxisCall, tensors: Any, dim: int = 0) -> Axes | None:
    given = [call.axes(tensor) for tensor in tensors]
    if len({len(axes) for axes in given}) > 1:
        return None
    dim %= len(given[0])
    for axes in given[1:]:
        for place in set(range(len(axes))) - {dim}:
            call.join(given[0][place], axes[place])
    whole = [call.axes(tensor) for tensor in tensors]
    along = tuple(segment for axes in whole for segment in (fixed(1) if axes[dim] == ONE else axes[dim]))
    return (*whole[0][:dim], call.state.variables.resolve(along), *whole[0][dim + 1 :])


@axis_rule(*named("stack"))
def _stack(call: AxisCall, tensors: Any, dim: int = 0) -> Axes:
    given = [call.axes(tensor) for tensor in tensors]
    for axes in given[1:]:
        for one, other in zip(given[0], axes, strict=True):
            call.join(one, other)
    kept = list(call.axes(tensors[0]))
    kept.insert(dim % (len(kept) + 1), fixed(len(tensors)))
    return tuple(kept)


@axis_rule(*named("flip", "fliplr", "flipud", "roll"))
def _moved(call: AxisCall, input: Tensor, *options: Any, **others: Any) -> Axes:
    """Axes of variables are pinned, along which elements move."""
    axes = call.axes(input)
    dims = others.get("dims", options[-1] if options else None)
    name = getattr(call.func, "__name__", "")
    if name in ("fliplr", "flipud"):
        dims = 1 if name == "fliplr" else 0
    if dims is None or (name == "roll" and "dims" not in others and len(options) < 2):
        moved = list(axes)
    else:
        places = [dims] if isinstance(dims, int) else list(dims)
        moved = [axes[place] for place in places]
    call.pin(moved, "which moves units")
    return call.axes(input)


@axis_rule(F.pad)
def _pad(call: AxisCall, input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Axes:
    """Constants are put at the ends of fixed axes."""
    axes = list(call.axes(input))
    for place, width in enumerate(pad):
        at = len(axes) - 1 - place // 2
        if width:
            call.pin([axes[at]], "which adds units")
            axes[at] = fixed(call.result.shape[at])
    if mode == "constant" and value:
        call.reduce(axes)
    return tuple(axes)


@axis_rule(*named("pixel_shuffle", "pixel_unshuffle"))
def _pixels(call: AxisCall, input: Tensor, factor: int) -> Axes | None:
    *batch, channels, height, width = call.axes(input)
    if getattr(call.func, "__name__", "") != "pixel_shuffle":
        return None
    kept, _ = call.split(channels, size_of(channels) // factor**2, factor**2)
    inner = call.split(channels, size_of(kept), factor**2)[1]
    call.pin([inner, height, width], "which moves units")
    return (*batch, kept, *(fixed(size) for size in call.result.shape[-2:]))


@axis_rule(*named("tril", "triu"))
def _triangle(call: AxisCall, input: Tensor, *options: Any, **others: Any) -> Axes:
    axes = call.axes(input)
    call.pin(axes[-2:], "which leaves out units")
    call.reduce(axes, Level.PERMUTATION)
    return call.axes(input)


def _pool(spatial: int, choosing: bool) -> AxisRule:
    def pool(call: AxisCall, input: Tensor, *options: Any, **others: Any) -> Axes | None:
        """Means over the positions of each channel, or (``choosing``) maxima."""
        if not isinstance(call.result, Tensor):
            return None
        axes = call.axes(input)
        call.pin(axes[-spatial:], "which pools its positions")
        if choosing:
            call.reduce(axes)
        kept = call.axes(input)[:-spatial]
        return (*kept, *(fixed(size) for size in call.result.shape[-spatial:]))

    return pool


for _spatial in (1, 2, 3):
    axis_rule(*named(f"avg_pool{_spatial}d", f"adaptive_avg_pool{_spatial}d"))(_pool(_spatial, choosing=False))
    axis_rule(*named(f"max_pool{_spatial}d", f"adaptive_max_pool{_spatial}d"))(_pool(_spatial, choosing=True))


@axis_rule(F.interpolate, F.upsample)
def _interpolate(call: AxisCall, input: Tensor, *options: Any, **others: Any) -> Axes:
    axes = call.axes(input)
    call.pin(axes[2:], "which pools its positions")
    return (*axes[:2], *(fixed(size) for size in call.result.shape[2:]))
