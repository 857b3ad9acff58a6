"""Elementwise products and quotients."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from teleport._quiver.rules.contractions import layer
from teleport._quiver.rules.table import Call, named, rule
from teleport._quiver.scale_indices import compact


@rule(*named("mul", "mul_", "multiply", "multiply_"))
def _multiply(call: Call, input: Any, other: Any) -> Tensor | None:
    """A parameter is a layer, as a layer scale is; of two activations that scale the smaller, a gate, is pinned."""
    if not isinstance(input, Tensor) or not isinstance(other, Tensor):
        return call.label(input if isinstance(input, Tensor) else other)
    for one, value in ((other, input), (input, other)):
        weight = call.weight(one)
        if weight is not None:
            call.use(one)
            made = list(range(call.result.dim()))
            return layer(call, "scale", weight, call.label(value), (_last(made, one), _last(made, value), made))
    labels = [call.label(input), call.label(other)]
    small, large = sorted(labels, key=lambda label: (bool(compact(label).any()), label.numel()))
    if bool(compact(small).any()):
        call.pin(small, "as a factor of what scales, too")
    return large.expand(call.result.shape)


def _last(axes: list[int], tensor: Tensor) -> list[int]:
    return axes[len(axes) - tensor.dim() :]


@rule(*named("div", "div_", "divide", "true_divide"))
def _divide(call: Call, input: Tensor, other: Any) -> Tensor | None:
    """By what does not scale."""
    if isinstance(other, Tensor) and bool(compact(call.label(other)).any()):
        return None
    return call.label(input).expand(call.result.shape)


@rule(F.glu)
def _gated(call: Call, input: Tensor, dim: int = -1) -> Tensor:
    """The first half times the sigmoid of the second."""
    passed, gate = call.label(input).chunk(2, dim)
    call.pin(gate, "as a gate")
    return passed
