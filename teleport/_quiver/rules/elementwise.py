"""Elementwise functions, and sums of two tensors."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from teleport._quiver.rules.table import ACTIVATIONS, RULES, Call, Rule, named, register_rule
from teleport._quiver.scale_indices import compact, constant

PASSING = (
    *("neg", "negative", "neg_", "positive", "clone", "contiguous", "detach", "to", "cpu", "cuda", "requires_grad_"),
    *("float", "double", "half", "bfloat16", "zero_", "real"),
    *("dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "feature_dropout"),
)
"""``f(tau x) = tau f(x)`` for any tau."""

HOMOGENEOUS = ("relu", "relu_", "leaky_relu", "leaky_relu_", "rrelu", "rrelu_", "prelu", "abs", "abs_", "absolute")
"""``f(tau x) = tau f(x)`` for positive tau."""

OTHERS = (
    *("tanh", "tanh_", "sigmoid", "sigmoid_", "relu6", "elu", "elu_", "celu", "celu_", "selu", "selu_", "gelu"),
    *("silu", "mish", "hardswish", "hardsigmoid", "softplus", "softsign", "logsigmoid", "tanhshrink", "hardshrink"),
    *("softshrink", "hardtanh", "hardtanh_", "sin", "cos", "exp", "erf", "square", "sqrt", "atan", "sinh", "cosh"),
)
"""Elementwise, and of none of these kinds: factors pass through the teleported form ``tau f(x / tau)`` alone."""

FORMS = (
    *("new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like", "empty_like"),
    *("rand_like", "randn_like"),
)
"""Their result has something of the argument's form and nothing of its values."""


@register_rule(*named(*FORMS))
def _form(call: Call, input: Tensor, *options: Any, **others: Any) -> Tensor:
    call.scale_index(input)
    return constant(call.result.shape)


@register_rule(*named(*PASSING))
def _pass(call: Call, input: Tensor, *options: Any, **others: Any) -> Tensor:
    return call.scale_index(input)


def _activation(homogeneous: bool) -> Rule:
    def activate(call: Call, input: Tensor, *options: Any, **others: Any) -> Tensor:
        return call.state.activate(call.func, call.scale_index(input), homogeneous)

    return activate


def _register_activations(names: tuple[str, ...], made: Rule) -> None:
    functions = named(*names)
    ACTIVATIONS.update(functions)
    RULES.update(dict.fromkeys(functions, made))


_register_activations(HOMOGENEOUS, _activation(homogeneous=True))
_register_activations(OTHERS, _activation(homogeneous=False))


def _clamp(call: Call, input: Tensor, min: Any = None, max: Any = None) -> Tensor | None:
    """Homogeneous if it clamps at 0 or not at all."""
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        return None
    homogeneous = all(bound is None or bound == 0 or math.isinf(bound) for bound in (min, max))
    return call.state.activate(call.func, call.scale_index(input), homogeneous)


def _clamp_max(call: Call, input: Tensor, max: Any) -> Tensor | None:
    return _clamp(call, input, max=max)


def _threshold(call: Call, input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    return call.state.activate(call.func, call.scale_index(input), homogeneous=threshold == 0 and value == 0)


_register_activations(("clamp", "clamp_", "clip", "clip_", "clamp_min", "clamp_min_"), _clamp)
_register_activations(("clamp_max", "clamp_max_"), _clamp_max)
_register_activations(("threshold", "threshold_"), _threshold)


@register_rule(*named("add", "add_", "sub", "sub_", "subtract", "__rsub__", "rsub"))
def _add(call: Call, input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """Summands must scale alike; a number carries 1 unless it is 0."""
    if not isinstance(input, Tensor) or not isinstance(other, Tensor):
        scale_index, number = (
            (call.scale_index(input), other) if isinstance(input, Tensor) else (call.scale_index(other), input)
        )
        if number != 0:
            call.pin(scale_index, "which adds a constant")
        return scale_index
    return joined(call, call.scale_index(input), call.scale_index(other))


@register_rule(*named("maximum", "minimum", "fmax", "fmin"))
def _larger(call: Call, input: Tensor, other: Tensor) -> Tensor:
    scale_index = joined(call, call.scale_index(input), call.scale_index(other))
    call.state.only_positive(scale_index, call.func)
    return scale_index


@register_rule(*named("where"))
def _where(call: Call, condition: Tensor, input: Any, other: Any) -> Tensor | None:
    """Chooses between values that must scale alike; 0 scales with anything."""
    scale_indices = [call.scale_index(value) for value in (input, other) if isinstance(value, Tensor)]
    if any(not isinstance(value, Tensor) and value != 0 for value in (input, other)):
        return None
    both = joined(call, scale_indices[0], scale_indices[-1]) if scale_indices else None
    return None if both is None else both.expand(call.result.shape)


@register_rule(*named("masked_fill", "masked_fill_"))
def _masked_fill(call: Call, input: Tensor, mask: Tensor, value: Any) -> Tensor | None:
    if isinstance(value, Tensor) or value != 0:
        return None
    return call.scale_index(input).expand(call.result.shape)


def joined(call: Call, scale_index: Tensor, other: Tensor) -> Tensor:
    """The common scale index of both: the one with fewer elements, unless the first is changed in place."""
    call.join(scale_index, other)
    shorter = compact(other).numel() < compact(scale_index).numel() and not call.state.held(call.result)
    return (other if shorter else scale_index).expand(call.result.shape)
