"""Functions that rearrange elements or put them side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from teleport._quiver.rules.table import left_out
from teleport._symmetry_groups.axis import ONE, Axis, Level, fixed, size_of
from teleport._symmetry_groups.axis_state import Axes
from teleport._symmetry_groups.rules.table import AXIS_RULES, AxisCall, AxisRule, axis_rule, named
from teleport._symmetry_groups.rules.turns import together
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
    """All elements along an axis several times."""
    axes = (ONE,) * (call.result.dim() - input.dim()) + call.axes(input)
    copies = call.state.variables.copies
    whole = [
        axis if size_of(axis) == size else call.product(copies(size // size_of(axis)), axis)
        for axis, size in zip(axes, call.result.shape, strict=True)
    ]
    return tuple(whole)


@axis_rule(*named("cat", "concat", "concatenate"))
def _cat(call: AxisCall, tensors: Any, dim: int = 0) -> Axes | None:
    if (turned := together(call, tensors, dim, stacked=False)) is not None:
        return turned
    tensors = [tensor for tensor in tensors if not left_out(tensor)]
    given = [call.axes(tensor) for tensor in tensors]
    if len({len(axes) for axes in given}) > 1:
        return None
    dim %= len(given[0])
    if len(given) > 1 and all(tensor is tensors[0] for tensor in tensors):
        along = call.product(call.state.variables.copies(len(given)), given[0][dim])
        return (*given[0][:dim], along, *given[0][dim + 1 :])
    for axes in given[1:]:
        for place in set(range(len(axes))) - {dim}:
            call.join(given[0][place], axes[place])
    whole = [call.axes(tensor) for tensor in tensors]
    along = tuple(segment for axes in whole for segment in (fixed(1) if axes[dim] == ONE else axes[dim]))
    return (*whole[0][:dim], call.state.variables.resolve(along), *whole[0][dim + 1 :])


@axis_rule(*named("stack"))
def _stack(call: AxisCall, tensors: Any, dim: int = 0) -> Axes:
    if (turned := together(call, tensors, dim, stacked=True)) is not None:
        return turned
    given = [call.axes(tensor) for tensor in tensors]
    for axes in given[1:]:
        for one, other in zip(given[0], axes, strict=True):
            call.join(one, other)
    kept = list(call.axes(tensors[0]))
    same = len(tensors) > 1 and all(tensor is tensors[0] for tensor in tensors)
    own = call.state.variables.copies(len(tensors)) if same else fixed(len(tensors))
    kept.insert(dim % (len(kept) + 1), own)
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
    gone = {id(axis) for axis in moved}
    return tuple(fixed(size_of(axis)) if id(axis) in gone else axis for axis in axes)


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
