"""Functions with weights of their own: convolutions, normalisations, embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from teleport._symmetry_groups.axis import Level, fixed, size_of
from teleport._symmetry_groups.axis_state import Axes
from teleport._symmetry_groups.rules.contractions import with_bias
from teleport._symmetry_groups.rules.table import AxisCall, AxisRule, axis_rule

BLOCKS = "it enters a grouped convolution, which keeps groups apart"


def _convolution(spatial: int, transposed: bool) -> AxisRule:
    def convolve(call: AxisCall, input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Axes | None:
        axes, kernel = call.axes(input), call.axes(weight)
        if input.dim() < spatial + 1:
            return None
        call.pin([*axes[-spatial:], *kernel[2:]], "which moves a window along it")
        channels = axes[-spatial - 1]
        if groups == 1:
            made, read = (kernel[1], kernel[0]) if transposed else (kernel[0], kernel[1])
            call.join(channels, read, dual=True)
        else:
            made = _grouped(call, channels, kernel[0], kernel[1], groups, transposed)
        made = call.state.variables.resolve(made)
        batch = axes[: -spatial - 1]
        result = (*batch, made, *(fixed(size) for size in call.result.shape[-spatial:]))
        return with_bias(call, result, bias, -spatial - 1)

    def forward(
        call: AxisCall,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Axes | None:
        return convolve(call, input, weight, bias, groups)

    def backward(
        call: AxisCall,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Axes | None:
        return convolve(call, input, weight, bias, groups)

    return backward if transposed else forward


def _grouped(call: AxisCall, channels: Any, first: Any, second: Any, groups: int, transposed: bool) -> Any:
    """The output channels of a grouped convolution: groups are permuted with what is in them."""
    group, inner = call.split(channels, groups, size_of(channels) // groups)
    own, outer = call.split(first, groups, size_of(first) // groups)
    group = call.split(channels, groups, size_of(inner))[0]
    call.join(group, own)
    call.reduce([group, own], why=BLOCKS)
    if not transposed:
        call.join(inner, second, dual=True)
        return first
    call.join(inner, outer, dual=True)
    return call.product(group, second)


for _spatial in (1, 2, 3):
    axis_rule(getattr(F, f"conv{_spatial}d"))(_convolution(_spatial, transposed=False))
    axis_rule(getattr(F, f"conv_transpose{_spatial}d"))(_convolution(_spatial, transposed=True))


def _affine(
    call: AxisCall, input: Tensor, held: Sequence[Tensor | None], places: Sequence[int], level: Level, name: str
) -> Axes:
    """Axes of a standardisation, with scales, shifts and statistics along some of them."""
    axes = call.axes(input)
    call.reduce(axes, level if all(each is None for each in held) else Level.PERMUTATION, f"it enters a {name}")
    for tensor in held:
        if tensor is not None:
            for place, axis in zip(places, call.axes(tensor, statistics=name == "batch norm"), strict=True):
                call.join(axes[place], axis)
    return call.axes(input)


@axis_rule(F.batch_norm)
def _batch_norm(
    call: AxisCall,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Axes:
    held = (running_mean, running_var, weight, bias)
    axes = _affine(call, input, held, [1], Level.PERMUTATION, "batch norm")
    if training:
        call.mix(axes, [place for place in range(input.dim()) if place != 1])
    return call.axes(input)


@axis_rule(F.instance_norm)
def _instance_norm(
    call: AxisCall,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *options: Any,
    **others: Any,
) -> Axes | None:
    if running_mean is not None or running_var is not None:
        return None
    axes = _affine(call, input, (weight, bias), [1], Level.PERMUTATION, "instance norm")
    call.mix(axes, range(2, input.dim()))
    return call.axes(input)


@axis_rule(F.group_norm)
def _group_norm(
    call: AxisCall,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Axes:
    axes = call.axes(input)
    group, inner = call.split(axes[1], num_groups, input.shape[1] // num_groups)
    call.reduce([group, inner], why="it enters a group norm")
    axes = _affine(call, input, (weight, bias), [1], Level.PERMUTATION, "group norm")
    call.mix(axes, range(2, input.dim()))
    return call.axes(input)


@axis_rule(F.layer_norm)
def _layer_norm(
    call: AxisCall,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Axes:
    places = range(-len(normalized_shape), 0)
    if len(places) == 1 and _multiplies_by_one(call, weight):
        axes = call.axes(input)
        call.reduce(axes[:-1])
        call.reduce(axes[-1:], Level.CENTERED, "its mean is taken in a layer norm")
        if bias is not None:
            call.join(axes[-1], call.axes(bias)[0])
        call.state.contexts.append(axes[:-1])
        return call.axes(input)
    axes = _affine(call, input, (weight, bias), places, Level.PERMUTATION, "layer norm with weights")
    call.mix(axes, places)
    return call.axes(input)


@axis_rule(F.rms_norm)
def _rms_norm(
    call: AxisCall, input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Axes:
    """A rotation of the normalised axis keeps its norm, unless a weight multiplies its elements."""
    places = range(-len(normalized_shape), 0)
    axes = call.axes(input)
    others = axes[: len(axes) - len(normalized_shape)]
    call.reduce(others)
    if len(places) == 1 and _multiplies_by_one(call, weight):
        call.reduce(axes[-1:], Level.ORTHOGONAL, "its norm is taken in a rms norm")
        call.state.contexts.append(others)
        return call.axes(input)
    axes = _affine(call, input, (weight,), places, Level.PERMUTATION, "rms norm with weights")
    call.mix(axes, places)
    return call.axes(input)


def _multiplies_by_one(call: AxisCall, weight: Tensor | None) -> bool:
    """Whether a norm has no weight, or one that is folded into others."""
    if weight is None:
        return True
    if not call.state.folds(weight):
        return False
    call.use(weight)
    return True


@axis_rule(F.embedding)
def _embedding(
    call: AxisCall,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    *options: Any,
    **others: Any,
) -> Axes | None:
    if max_norm is not None:
        return None
    rows, units = call.axes(weight)
    call.pin(call.axes(input), "as an index")
    call.pin([rows], "which selects units")
    return (*(fixed(size) for size in input.shape), call.state.variables.resolve(units))
