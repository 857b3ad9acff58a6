"""Elementwise functions of one or several tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from teleport._quiver.rules.elementwise import FORMS, HOMOGENEOUS, OTHERS
from teleport._symmetry_groups.axis import Level, fixed
from teleport._symmetry_groups.axis_state import Axes
from teleport._symmetry_groups.rules.table import AXIS_RULES, AxisCall, axis_rule, named

LINEAR = (
    *("neg", "negative", "neg_", "positive", "clone", "contiguous", "detach", "to", "cpu", "cuda", "requires_grad_"),
    *("float", "double", "half", "bfloat16", "type_as"),
)
"""Elementwise and linear, so that any matrix passes along any axis."""

ODD = (
    *("tanh", "tanh_", "sin", "erf", "atan", "sinh", "tanhshrink", "softsign", "hardshrink", "softshrink", "asinh"),
    *("sign", "trunc", "round"),
)
"""``f(-x) = -f(x)``."""

POINTWISE = (
    *("exp", "log", "log1p", "expm1", "rsqrt", "reciprocal", "pow", "sign", "floor", "ceil", "nan_to_num"),
    *("isnan", "isfinite", "isinf", "logical_not", "bool", "erfc", "gt", "lt", "ge", "le", "eq", "ne"),
    *("__gt__", "__lt__", "__ge__", "__le__", "__pow__", "clamp", "clamp_", "clip", "clamp_min", "clamp_max"),
    *("threshold", "threshold_", "float_power", "square_", "exp_"),
)
"""Further elementwise functions; those of two tensors broadcast."""


@axis_rule(*named(*LINEAR))
def _linear(call: AxisCall, input: Tensor, *options: Any, **others: Any) -> Axes:
    for option in (*options, *others.values()):
        if isinstance(option, Tensor):
            call.axes(option)
    return call.axes(input)


def _pointwise(level: Level) -> Any:
    def rule(call: AxisCall, input: Any, *options: Any, **others: Any) -> Axes:
        tensors = [each for each in (input, *options, *others.values()) if isinstance(each, Tensor)]
        axes = call.broadcast(tensors)
        call.reduce(axes, level if len(tensors) == 1 else Level.PERMUTATION)
        return axes

    return rule


for _name in (*POINTWISE, *HOMOGENEOUS, *OTHERS, *ODD):
    for _function in [f for place in (torch, Tensor, F) if (f := getattr(place, _name, None)) is not None]:
        AXIS_RULES[_function] = _pointwise(Level.SIGNED if _name in ODD else Level.PERMUTATION)


@axis_rule(F.prelu, torch.prelu, Tensor.prelu)
def _prelu(call: AxisCall, input: Tensor, weight: Tensor) -> Axes:
    axes, slopes = call.axes(input), call.axes(weight)
    if weight.numel() > 1:
        call.join(axes[1], slopes[0])
    call.reduce(axes)
    return call.axes(input)


@axis_rule(*named("dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout"))
def _dropout(call: AxisCall, input: Tensor, p: float = 0.5, *options: Any, **others: Any) -> Axes:
    """In training it leaves elements out, which permutations alone keep alike."""
    axes = call.axes(input)
    if p > 0:
        call.reduce(axes, why="it enters dropout, which leaves out units")
    return axes


@axis_rule(*named(*FORMS))
def _form(call: AxisCall, input: Tensor, *options: Any, **others: Any) -> Axes:
    call.axes(input)
    return tuple(fixed(size) for size in call.result.shape)


@axis_rule(*named("add", "add_", "sub", "sub_", "subtract", "__rsub__", "rsub"))
def _add(call: AxisCall, input: Any, other: Any, *, alpha: Any = 1) -> Axes:
    if isinstance(input, Tensor) and isinstance(other, Tensor):
        return call.broadcast([input, other])
    axes = call.axes(input if isinstance(input, Tensor) else other)
    number = other if isinstance(input, Tensor) else input
    if number != 0:
        call.reduce(axes, why="a constant is added to it")
    return axes


@axis_rule(*named("mul", "mul_", "multiply", "multiply_", "div", "div_", "divide", "true_divide"))
def _multiply(call: AxisCall, input: Any, other: Any) -> Axes:
    if isinstance(input, Tensor) and isinstance(other, Tensor):
        axes = call.broadcast([input, other], product=True)
        if "div" in getattr(call.func, "__name__", ""):
            call.reduce(call.axes(other))
        return axes
    return call.axes(input if isinstance(input, Tensor) else other)


@axis_rule(Tensor.__rtruediv__, Tensor.__rdiv__, Tensor.__rpow__)
def _reflected(call: AxisCall, input: Tensor, other: Any) -> Axes | None:
    if isinstance(other, Tensor):
        return None
    call.reduce(call.axes(input))
    return call.axes(input)


@axis_rule(*named("maximum", "minimum", "fmax", "fmin", "logaddexp", "logical_and", "logical_or", "atan2"))
def _larger(call: AxisCall, input: Tensor, other: Tensor) -> Axes:
    axes = call.broadcast([input, other])
    call.reduce(axes)
    return axes


@axis_rule(*named("where"))
def _where(call: AxisCall, condition: Tensor, input: Any, other: Any) -> Axes:
    tensors = [each for each in (condition, input, other) if isinstance(each, Tensor)]
    axes = call.broadcast(tensors)
    call.reduce(axes)
    return axes


@axis_rule(*named("masked_fill", "masked_fill_"))
def _masked_fill(call: AxisCall, input: Tensor, mask: Tensor, value: Any) -> Axes:
    axes = call.broadcast([input, mask])
    call.reduce(axes)
    if isinstance(value, Tensor):
        call.axes(value)
    return axes


@axis_rule(F.glu)
def _gated(call: AxisCall, input: Tensor, dim: int = -1) -> Axes:
    axes = list(call.axes(input))
    half = input.shape[dim] // 2
    call.reduce(axes)
    first, second = call.cut(axes[dim], 0, half), call.cut(axes[dim], half, 2 * half)
    call.join(first, second)
    axes[dim] = call.state.variables.resolve(first)
    return tuple(axes)


@axis_rule(*named("softmax", "log_softmax", "logsumexp", "cumsum"))
def _softmax(call: AxisCall, input: Tensor, dim: Any = None, *options: Any, **others: Any) -> Axes | None:
    """All axes keep permutations, and no element differs along the axis that is normalised."""
    if not isinstance(dim, int) or call.func in named("logsumexp", "cumsum"):
        return None
    axes = call.axes(input)
    call.reduce(axes)
    call.mix(axes, [dim])
    return call.axes(input)


@axis_rule(*named("mean", "sum", "nanmean", "nansum", "amax", "amin", "var", "std", "norm", "prod"))
def _reduce(call: AxisCall, input: Tensor, dim: Any = None, *options: Any, **others: Any) -> Axes | None:
    """Symmetric functions over axes."""
    name = getattr(call.func, "__name__", "")
    if name == "norm":
        dim, options = (others.get("dim", options[0] if options else None), ())
    if isinstance(dim, bool) or not isinstance(call.result, Tensor):
        return None
    axes = call.axes(input)
    gone = range(len(axes)) if dim is None or dim == () else [dim] if isinstance(dim, int) else dim
    over = sorted({axis % len(axes) for axis in gone}) if axes else []
    if name not in ("mean", "sum"):
        call.reduce(axes)
    call.mix(axes, over)
    axes = call.axes(input)
    keep = call.result.dim() == len(axes)
    one = fixed(1)
    return tuple(one if place in over else axis for place, axis in enumerate(axes) if keep or place not in over)
