"""Elementwise functions of one or several tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from teleport._quiver.rules.elementwise import FORMS, HOMOGENEOUS, OTHERS
from teleport._symmetry_groups.axis import Level, fixed
from teleport._symmetry_groups.axis_state import Axes
from teleport._symmetry_groups.later import Complex, Later, Mixture, Square
from teleport._symmetry_groups.rules.table import AXIS_RULES, AxisCall, axis_rule, named
from teleport._tracing.functions import called

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
def _linear(call: AxisCall, input: Tensor, *options: Any, **others: Any) -> Axes | Later:
    form = call.form(input)
    if isinstance(form, Mixture) and call.result is not input:
        call.use(input)
        negative = getattr(call.func, "__name__", "") in ("neg", "negative")
        return Later(form.negative() if negative else form, lambda: call.axes(input))
    for option in (*options, *others.values()):
        if isinstance(option, Tensor):
            call.axes(option)
    return call.axes(input)


def _pointwise(level: Level) -> Any:
    def rule(call: AxisCall, input: Any, *options: Any, **others: Any) -> Axes | Later:
        if _squares(call.func, options, others) and call.result is not input and input.is_floating_point():
            return square(call, input)
        tensors = [each for each in (input, *options, *others.values()) if isinstance(each, Tensor)]
        axes = call.broadcast(tensors)
        call.reduce(axes, level if len(tensors) == 1 else Level.PERMUTATION)
        return axes

    return rule


def _squares(func: Any, options: Any, others: Any) -> bool:
    """Whether a function is called with the exponent 2."""
    name = getattr(func, "__name__", "")
    exponent = options[0] if options else others.get("exponent")
    if name == "square":
        return not options and not others
    return name in ("pow", "__pow__", "float_power") and isinstance(exponent, (int, float)) and exponent == 2


def square(call: AxisCall, input: Tensor) -> Later:
    """Of ``input``: rotations keep the sum of its elements, permutations each."""
    axes = call.axes(input)

    def settle() -> Axes:
        call.reduce(axes)
        return call.axes(input)

    return Later(Square(input), settle)


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
        call.pin([axis for axis in axes if call.state.variables.copied(axis)], "after which copies differ")
    return call.axes(input)


@axis_rule(*named(*FORMS))
def _form(call: AxisCall, input: Tensor, *options: Any, **others: Any) -> Axes:
    call.axes(input)
    return tuple(fixed(size) for size in call.result.shape)


@axis_rule(*named("add", "add_", "sub", "sub_", "subtract", "__rsub__", "rsub"))
def _add(call: AxisCall, input: Any, other: Any, *, alpha: Any = 1) -> Axes | Later:
    one, two = call.form(input), call.form(other)
    if isinstance(one, Mixture) and isinstance(two, Mixture) and alpha == 1 and call.result is not input:
        name = getattr(call.func, "__name__", "")
        if name not in ("add", "add_"):
            one, two = (one.negative(), two) if name in ("__rsub__", "rsub") else (one, two.negative())
        if (whole := one.plus(two)) is not None and input.shape == other.shape:
            call.use(input, other)
            return Later(whole, lambda: call.broadcast([input, other]))
    if isinstance(input, Tensor) and isinstance(other, Tensor):
        return call.broadcast([input, other])
    axes = call.axes(input if isinstance(input, Tensor) else other)
    number = other if isinstance(input, Tensor) else input
    if number != 0:
        call.reduce(axes, Level.CENTERED, "a constant is added to it")
    return axes


@axis_rule(*named("mul", "mul_", "multiply", "multiply_", "div", "div_", "divide", "true_divide"))
def _multiply(call: AxisCall, input: Any, other: Any) -> Axes | Later:
    divides = "div" in getattr(call.func, "__name__", "")
    if isinstance(input, Tensor) and isinstance(other, Tensor):
        if input is other and not divides and input.is_floating_point() and call.result is not input:
            return square(call, input)
        for one, two in ((input, other), (other, input)):
            if (found := _by_constant(call, one, two)) is not None and not divides:
                return found
            if two.dim() == 1 and not divides and one.shape == call.result.shape and call.state.folds(two):
                call.use(two)
                return call.axes(one)
        axes = call.broadcast([input, other], product=True)
        if divides:
            call.reduce(call.axes(other))
        return axes
    return call.axes(input if isinstance(input, Tensor) else other)


def _by_constant(call: AxisCall, input: Tensor, constant: Tensor) -> Later | None:
    """A part of an axis, or complex numbers, times a constant of the evaluation."""
    form = call.form(input)
    if (
        form is None
        or constant.is_inference()
        or call.state.held(constant)
        or call.result is input
        or call.result.shape != input.shape
    ):
        return None
    if call.state.memory.of(constant):
        return None
    if isinstance(form, Complex):
        call.use(input, constant)
        whole = Complex(form.of, (*form.constants, constant))
        return Later(whole, lambda: call.state.pinned_like(form.of, call.result))
    if not isinstance(form, Mixture) or (scaled := form.times(constant)) is None:
        return None
    call.use(input, constant)
    return Later(scaled, lambda: call.broadcast([input, constant], product=True))


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


@axis_rule(*named("mean", "sum", "nanmean", "nansum", "amax", "amin", "var", "std", "prod"))
def _reduce(call: AxisCall, input: Tensor, dim: Any = None, *options: Any, **others: Any) -> Axes | None:
    """Symmetric functions over axes."""
    name = getattr(call.func, "__name__", "")
    if isinstance(dim, bool) or not isinstance(call.result, Tensor):
        return None
    form = call.form(input) if name in ("mean", "sum") else None
    axes = call.axes(form.of) if isinstance(form, Square) else call.axes(input)
    gone = range(len(axes)) if dim is None or dim == () else [dim] if isinstance(dim, int) else dim
    over = sorted({axis % len(axes) for axis in gone}) if axes else []
    if isinstance(form, Square) and len(over) == 1:
        call.use(input)
        norm_over(call, axes, over[0])
    else:
        axes = call.axes(input)
        alone = [axis for place, axis in enumerate(axes) if place not in over]
        centered = name in ("mean", "sum") or (name in ("var", "std") and len(over) == 1)
        if name not in ("mean", "sum"):
            call.reduce(alone)
        call.mix(axes, over, Level.CENTERED if centered else Level.PERMUTATION)
    axes = tuple(call.state.variables.resolve(axis) for axis in axes)
    keep = call.result.dim() == len(axes)
    one = fixed(1)
    return tuple(one if place in over else axis for place, axis in enumerate(axes) if keep or place not in over)


def norm_over(call: AxisCall, axes: Axes, place: int) -> None:
    """A rotation of an axis keeps the norm over it."""
    others = axes[:place] + axes[place + 1 :]
    call.reduce(others)
    call.reduce([axes[place]], Level.ORTHOGONAL, f"its norm is taken in {called(call.func)}")
    call.state.contexts.append(others)


@axis_rule(torch.linalg.vector_norm, torch.linalg.norm)
def _vector_norm(
    call: AxisCall, x: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, **others: Any
) -> Axes | None:
    return _over_one(call, x, 2 if ord is None else ord, dim, keepdim)


@axis_rule(*named("norm"))
def _norm(
    call: AxisCall, input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, **others: Any
) -> Axes | None:
    return _over_one(call, input, p, dim, keepdim)


def _over_one(call: AxisCall, input: Tensor, p: Any, dim: Any, keepdim: bool) -> Axes | None:
    """A norm over one axis; that of another power keeps permutations."""
    dim = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
    if not isinstance(dim, int):
        return None
    axes = call.axes(input)
    place = dim % len(axes)
    if p in ("fro", 2):
        norm_over(call, axes, place)
    else:
        call.reduce(axes)
        call.mix(axes, [place])
    axes = call.axes(input)
    return (*axes[:place], *([fixed(1)] if keepdim else []), *axes[place + 1 :])


@axis_rule(F.normalize)
def _normalize(
    call: AxisCall, input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None
) -> Axes | None:
    if p != 2 or not isinstance(dim, int) or out is not None:
        return None
    axes = call.axes(input)
    norm_over(call, axes, dim % len(axes))
    return call.axes(input)
