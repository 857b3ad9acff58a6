"""Elementwise products and quotients."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from teleport._quiver.rules.contractions import layer
from teleport._quiver.rules.table import Call, named, register_rule
from teleport._quiver.scale_indices import compact


@register_rule(*named("mul", "mul_", "multiply", "multiply_"))
def _multiply(call: Call, input: Any, other: Any) -> Tensor | None:
    """A parameter acts as a layer (a layer scale); of two activations with factors the smaller, a gate, is pinned."""
    if not isinstance(input, Tensor) or not isinstance(other, Tensor):
        return call.scale_index(input if isinstance(input, Tensor) else other)
    for one, value in ((other, input), (input, other)):
        weight = call.weight(one)
        if weight is not None:
            call.use(one)
            made = list(range(call.result.dim()))
            return layer(call, "scale", weight, call.scale_index(value), (_last(made, one), _last(made, value), made))
    scale_indices = [call.scale_index(input), call.scale_index(other)]
    small, large = sorted(
        scale_indices, key=lambda scale_index: (bool(compact(scale_index).any()), scale_index.numel())
    )
    if bool(compact(small).any()):
        call.pin(small, "as a factor of another activation")
    return large.expand(call.result.shape)


def _last(axes: list[int], tensor: Tensor) -> list[int]:
    return axes[len(axes) - tensor.dim() :]


@register_rule(*named("div", "div_", "divide", "true_divide"))
def _divide(call: Call, input: Tensor, other: Any) -> Tensor | None:
    """Division by a tensor that carries 1."""
    if isinstance(other, Tensor) and bool(compact(call.scale_index(other)).any()):
        return None
    return call.scale_index(input).expand(call.result.shape)


@register_rule(F.glu)
def _gated(call: Call, input: Tensor, dim: int = -1) -> Tensor:
    """The first half times the sigmoid of the second."""
    passed, gate = call.scale_index(input).chunk(2, dim)
    call.pin(gate, "as a gate")
    return passed
