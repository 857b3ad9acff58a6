"""Products that are summed: matrix products and ``einsum``, of a layer's weight or of two activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from teleport._quiver.parameter_scales import Weight
from teleport._quiver.rules.elementwise import joined
from teleport._quiver.rules.table import Call, named, register_rule
from teleport._quiver.scale_indices import compact, constant

Axes = Sequence[Any]
"""A name for each axis of a tensor; axes of one name are multiplied with each other."""


def contract(call: Call, kind: str, first: Tensor, second: Tensor, axes: tuple[Axes, Axes, Axes]) -> Tensor | None:
    """The scale index of ``einsum(first, second)``.

    Args:
        call: the call that has both as arguments.
        kind: the use of a weight among them.
        first, second: an activation or a weight each.
        axes: of ``first``, ``second`` and the result.
    """
    firsts, seconds, made = axes
    for one, other, own, others in ((second, first, seconds, firsts), (first, second, firsts, seconds)):
        weight = call.weight(one)
        if weight is not None:
            call.use(one)
            return layer(call, kind, weight, call.scale_index(other), (own, others, made))
    scale_indices = [call.scale_index(first), call.scale_index(second)]
    scaling = [bool(compact(scale_index).any()) for scale_index in scale_indices]
    if all(scaling):
        _invert(call, scale_indices, (firsts, seconds))
        return constant(call.result.shape)
    scale_index, own = (scale_indices[1], seconds) if scaling[1] else (scale_indices[0], firsts)
    kept = [axis for axis, name in enumerate(own) if name in made]
    return arranged(call.along(scale_index, *kept), own, made).expand(call.result.shape)


def layer(call: Call, kind: str, weight: Weight, scale_index: Tensor, axes: tuple[Axes, Axes, Axes]) -> Tensor | None:
    """The scale index of the output of a weight: scale variables of its own along the axes of the result.

    Args:
        call: the call of the layer.
        kind: the use of the weight.
        weight: the weight.
        scale_index: of the input.
        axes: of the weight, the input and the result.
    """
    weights, inputs, made = axes
    alone = [name for name in weights if name not in made and name not in inputs]
    if alone or scale_index.dim() != len(inputs) or len(set(weights)) < len(weights):
        return None
    long = {name for name, length in zip(weights, weight.shape, strict=True) if length > 1}
    shared = [
        axis for axis, name in enumerate(inputs) if name in weights and (name in long or scale_index.shape[axis] == 1)
    ]
    read = arranged(call.along(scale_index, *shared), inputs, weights)
    variables = call.state.produce(kind, weight, [axis for axis, name in enumerate(weights) if name in made], read)
    return arranged(variables, weights, made).expand(call.result.shape)


def arranged(scale_index: Tensor, own: Axes, wanted: Axes) -> Tensor:
    """A scale index with its axes in the order ``wanted``; missing axes have length 1, as dropped axes must have."""
    scale_index = scale_index[tuple(slice(None) if name in wanted else 0 for name in own)]
    held = [name for name in own if name in wanted]
    scale_index = scale_index.permute([held.index(name) for name in wanted if name in held])
    return scale_index[tuple(slice(None) if name in held else None for name in wanted)]


def _invert(call: Call, scale_indices: Sequence[Tensor], axes: tuple[Axes, Axes]) -> None:
    """Two activations meet in a sum that carries 1, as a query and a key do: their factors are inverse."""
    names = [name for name in axes[0] if name in axes[1]]
    sides = []
    for scale_index, own in zip(scale_indices, axes, strict=True):
        shared = [axis for axis, name in enumerate(own) if name in names]
        sides.append(arranged(call.along(scale_index, *shared), own, names))
    call.invert(*sides)


@register_rule(F.linear)
def _linear(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    rows = list(range(input.dim() - 1))
    outputs = ["out"] * (weight.dim() - 1)
    scale_index = contract(call, "linear", input, weight, ([*rows, "in"], [*outputs, "in"], [*rows, *outputs]))
    return with_bias(call, scale_index, bias)


def with_bias(call: Call, scale_index: Tensor | None, bias: Tensor | None, axis: int = -1) -> Tensor | None:
    """The scale index of a layer's result, whose bias has one element per channel along ``axis``."""
    if scale_index is None or bias is None:
        return scale_index
    shape = [1] * scale_index.dim()
    if bias.dim() == 1:
        shape[axis] = len(bias)
    call.join(scale_index, call.scale_index(bias).reshape(shape).expand(scale_index.shape))
    return scale_index


@register_rule(*named("matmul", "mm", "bmm", "mv", "dot", "__matmul__"))
def _matmul(call: Call, input: Tensor, other: Tensor) -> Tensor | None:
    return contract(call, "matmul", input, other, matrix_axes(input, other))


@register_rule(Tensor.__rmatmul__)
def _reflected_matmul(call: Call, input: Tensor, other: Tensor) -> Tensor | None:
    return contract(call, "matmul", other, input, matrix_axes(other, input))


@register_rule(*named("addmm", "baddbmm", "addmv"))
def _add_product(
    call: Call, input: Tensor, first: Tensor, second: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor | None:
    scale_index = contract(call, "matmul", first, second, matrix_axes(first, second))
    return scale_index if scale_index is None or beta == 0 else joined(call, scale_index, call.scale_index(input))


def matrix_axes(first: Tensor, second: Tensor) -> tuple[Axes, Axes, Axes]:
    """The axes of ``first @ second`` and of its result; batches are counted from the last."""
    batch = list(range(max(first.dim(), second.dim()) - 2, 0, -1))
    left = [*batch[len(batch) - max(0, first.dim() - 2) :], *["row"] * (first.dim() > 1), "inner"]
    right = [*batch[len(batch) - max(0, second.dim() - 2) :], "inner", *["column"] * (second.dim() > 1)]
    return left, right, [*batch, *["row"] * (first.dim() > 1), *["column"] * (second.dim() > 1)]


@register_rule(torch.einsum)
def _einsum(call: Call, equation: Any, *operands: Any) -> Tensor | None:
    """``einsum`` of two operands, with one letter per axis."""
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or len(operands) != 2 or "." in equation:
        return None
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    first, _, second = inputs.partition(",")
    if not arrow or any(len(set(letters)) < len(letters) for letters in (first, second)):
        return None
    return contract(call, "einsum", *operands, (first, second, output))
