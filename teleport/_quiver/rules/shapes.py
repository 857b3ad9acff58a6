"""Functions that rearrange elements, average them or select among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from teleport._quiver.rules.table import ACTIVATIONS, RULES, Call, Rule, left_out, named, register_rule
from teleport._quiver.scale_indices import on_compact, reshaped, side_by_side
from teleport._tracing.ownership import tensors_in

IN_ROW_MAJOR_ORDER = (
    *("flatten", "reshape", "view", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as", "ravel"),
)
"""Their result holds the same elements in the same order."""

REARRANGING = (
    *("transpose", "permute", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "adjoint", "expand", "broadcast_to"),
    *("chunk", "split", "tensor_split", "unbind", "narrow", "select", "diagonal", "repeat", "tile"),
    *("index_select", "repeat_interleave", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "split_with_sizes"),
)
"""Each maps a scale index as it maps the elements."""

ALONG_AXES = ("flip", "fliplr", "flipud")
"""They do so too, and nothing to an axis of length 1."""


@register_rule(*named(*IN_ROW_MAJOR_ORDER))
def _reshape(call: Call, input: Tensor, *options: Any, **others: Any) -> Tensor | None:
    """Reshapes keep the row-major order.

    ``x.view(dtype)`` reinterprets the memory and has no rule.
    """
    if any(isinstance(option, torch.dtype) for option in (*options, *others.values())):
        return None
    for other in tensors_in((options, others)):
        call.scale_index(other)  # of which it reads the shape alone
    return reshaped(call.scale_index(input), call.result.shape)


def _on_scale_indices(function: Callable[..., Any]) -> Rule:
    def rearrange(call: Call, input: Tensor, *options: Any, **others: Any) -> Sequence[Tensor] | None:
        options, others = _on_cpu(options), _on_cpu(others)
        return list(tensors_in(function(call.scale_index(input), *options, **others)))

    return rearrange


for _function in (*named(*REARRANGING, "__getitem__"), Tensor.unfold):
    RULES[_function] = _on_scale_indices(_function)
for _property in (Tensor.T, Tensor.mT):
    RULES[_property.__get__] = _on_scale_indices(_property.__get__)  # type: ignore[attr-defined]


@register_rule(*named("expand_as"))
def _expand_as(call: Call, input: Tensor, other: Tensor) -> Tensor:
    call.scale_index(other)  # of which it reads the shape alone
    return call.scale_index(input).expand(call.result.shape)


def _on_short_axes(function: Callable[..., Tensor]) -> Rule:
    def rearrange(call: Call, input: Tensor, *options: Any, **others: Any) -> Tensor:
        return on_compact(function, call.scale_index(input), call.result.shape, *options, **others)

    return rearrange


for _function in named(*ALONG_AXES):
    RULES[_function] = _on_short_axes(_function)


@register_rule(torch.roll, Tensor.roll)
def _roll(call: Call, input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    scale_index = call.scale_index(input)
    return (
        scale_index.roll(shifts)
        if not dims and dims != 0
        else on_compact(torch.roll, scale_index, scale_index.shape, shifts, dims)
    )


@register_rule(*named("cat", "concat", "concatenate"))
def _cat(call: Call, tensors: Any, dim: int = 0) -> Tensor | None:
    """Concatenated scale indices, in the order of the arguments."""
    scale_indices = [call.scale_index(tensor) for tensor in tensors if not left_out(tensor)]
    return side_by_side(scale_indices, dim) if len({scale_index.dim() for scale_index in scale_indices}) == 1 else None


@register_rule(torch.stack)
def _stack(call: Call, tensors: Any, dim: int = 0) -> Tensor:
    return side_by_side([call.scale_index(tensor).unsqueeze(dim) for tensor in tensors], dim)


@register_rule(*named("mean", "sum", "nanmean", "nansum"))
def _reduce(call: Call, input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """A mean over elements that all scale alike."""
    scale_index = call.scale_index(input)
    gone = range(scale_index.dim()) if dim is None or dim == () else [dim] if isinstance(dim, int) else dim
    gone = {axis % max(1, scale_index.dim()) for axis in gone}
    return call.along(scale_index, *(axis for axis in range(scale_index.dim()) if axis not in gone)).reshape(
        call.result.shape
    )


@register_rule(*named("amax", "amin"))
def _extreme(call: Call, input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """The largest of elements that scale alike; a negative factor would make it the smallest."""
    scale_index = _reduce(call, input, dim, keepdim)
    assert isinstance(scale_index, Tensor)
    call.state.only_positive(scale_index, call.func)
    return scale_index


def _pool(spatial: int, choosing: bool) -> Rule:
    def pool(call: Call, input: Tensor, *options: Any, **others: Any) -> Tensor | None:
        """Means over the positions of each channel, or (``choosing``) maxima."""
        if not isinstance(call.result, Tensor):  # with indices
            return None
        scale_index = call.scale_index(input)
        channels = call.along(scale_index, *range(scale_index.dim() - spatial))
        passed = call.state.activate(call.func, channels, homogeneous=True) if choosing else channels
        return passed.expand(call.result.shape)

    return pool


for _spatial in (1, 2, 3):
    register_rule(*named(f"avg_pool{_spatial}d", f"adaptive_avg_pool{_spatial}d"))(_pool(_spatial, choosing=False))
    _choosing = named(f"max_pool{_spatial}d", f"adaptive_max_pool{_spatial}d")
    ACTIVATIONS.update(_choosing)
    register_rule(*_choosing)(_pool(_spatial, choosing=True))


@register_rule(F.interpolate, F.upsample)
def _interpolate(
    call: Call, input: Tensor, size: Any = None, scale_factor: Any = None, *options: Any, **others: Any
) -> Tensor:
    """Weighted means over the positions of each channel."""
    return call.along(call.scale_index(input), 0, 1).expand(call.result.shape)


@register_rule(F.pad)
def _pad(call: Call, input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor | None:
    """Zeros scale with anything: with the other elements on their axis or, if these differ, with scale variables of
    their own."""
    if mode == "constant" and value not in (None, 0):
        return None
    scale_index, shape = call.scale_index(input), call.result.shape
    changed = [scale_index.dim() - 1 - place // 2 for place, width in enumerate(pad) if width]
    if mode != "constant":
        return call.along(scale_index, *(a for a in range(scale_index.dim()) if a not in changed)).expand(shape)
    varying = [axis for axis in changed if scale_index.stride(axis) and scale_index.shape[axis] > 1]
    widths = list(pad)
    for axis in set(range(scale_index.dim())) - set(varying):
        first = 2 * (scale_index.dim() - 1 - axis)
        widths[first : first + 2] = [0] * len(widths[first : first + 2])
    short = scale_index[
        tuple(slice(0, 1) if a in changed and a not in varying else slice(None) for a in range(scale_index.dim()))
    ]
    padded = F.pad(short, widths, value=-1)
    missing = padded < 0
    padded[missing] = call.state.variables.fresh((int(missing.sum()),))
    return padded.expand(shape)


def _on_cpu(value: Any) -> Any:
    """Arguments with their tensors moved to the CPU, where scale indices are."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, (tuple, list)):
        return type(value)(_on_cpu(each) for each in value)
    return {key: _on_cpu(each) for key, each in value.items()} if isinstance(value, dict) else value
