"""Products that are summed: matrix products and ``einsum``, of a layer's weight or of two activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from teleport._quiver.parameter_scales import Weight
from teleport._quiver.rules.elementwise import joined
from teleport._quiver.rules.table import Call, named, rule
from teleport._quiver.scale_indices import compact, constant

Axes = Sequence[Any]
"""A name for each axis of a tensor; axes of one name are multiplied with each other."""


def contract(call: Call, kind: str, first: Tensor, second: Tensor, axes: tuple[Axes, Axes, Axes]) -> Tensor | None:
    """The label of ``einsum(first, second)``.

    Args:
        call: whose arguments the two are.
        kind: what a weight among them is used as.
        first, second: an activation or a weight each.
        axes: of ``first``, ``second`` and the result.
    """
    firsts, seconds, made = axes
    for one, other, own, others in ((second, first, seconds, firsts), (first, second, firsts, seconds)):
        weight = call.weight(one)
        if weight is not None:
            call.use(one)
            return layer(call, kind, weight, call.label(other), (own, others, made))
    labels = [call.label(first), call.label(second)]
    scaling = [bool(compact(label).any()) for label in labels]
    if all(scaling):
        _invert(call, labels, (firsts, seconds))
        return constant(call.result.shape)
    label, own = (labels[1], seconds) if scaling[1] else (labels[0], firsts)
    kept = [axis for axis, name in enumerate(own) if name in made]
    return arranged(call.along(label, *kept), own, made).expand(call.result.shape)


def layer(call: Call, kind: str, weight: Weight, label: Tensor, axes: tuple[Axes, Axes, Axes]) -> Tensor | None:
    """The label of what a weight makes of an input with this label: units of its own along what is the result's axes.

    Args:
        call: of the layer.
        kind: what the weight is used as.
        weight: that multiplies.
        label: of the input.
        axes: of the weight, the input and the result.
    """
    weights, inputs, made = axes
    alone = [name for name in weights if name not in made and name not in inputs]
    if alone or label.dim() != len(inputs) or len(set(weights)) < len(weights):
        return None
    long = {name for name, length in zip(weights, weight.shape, strict=True) if length > 1}
    shared = [axis for axis, name in enumerate(inputs) if name in weights and (name in long or label.shape[axis] == 1)]
    read = arranged(call.along(label, *shared), inputs, weights)
    units = call.labelling.produce(kind, weight, [axis for axis, name in enumerate(weights) if name in made], read)
    return arranged(units, weights, made).expand(call.result.shape)


def arranged(label: Tensor, own: Axes, wanted: Axes) -> Tensor:
    """A label with its axes in the order ``wanted``; those that it has not are 1 long, as those not wanted must be."""
    label = label[tuple(slice(None) if name in wanted else 0 for name in own)]
    held = [name for name in own if name in wanted]
    label = label.permute([held.index(name) for name in wanted if name in held])
    return label[tuple(slice(None) if name in held else None for name in wanted)]


def _invert(call: Call, labels: Sequence[Tensor], axes: tuple[Axes, Axes]) -> None:
    """Two activations meet in a sum that carries 1, as a query and a key do: factors undo each other."""
    names = [name for name in axes[0] if name in axes[1]]
    sides = []
    for label, own in zip(labels, axes, strict=True):
        shared = [axis for axis, name in enumerate(own) if name in names]
        sides.append(arranged(call.along(label, *shared), own, names))
    call.invert(*sides)


@rule(F.linear)
def _linear(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    rows = list(range(input.dim() - 1))
    outputs = ["out"] * (weight.dim() - 1)
    label = contract(call, "linear", input, weight, ([*rows, "in"], [*outputs, "in"], [*rows, *outputs]))
    return with_bias(call, label, bias)


def with_bias(call: Call, label: Tensor | None, bias: Tensor | None, axis: int = -1) -> Tensor | None:
    """The label of a layer's result, whose bias has an element for each channel along ``axis``."""
    if label is None or bias is None:
        return label
    shape = [1] * label.dim()
    if bias.dim() == 1:
        shape[axis] = len(bias)
    call.join(label, call.label(bias).reshape(shape).expand(label.shape))
    return label


@rule(*named("matmul", "mm", "bmm", "mv", "dot", "__matmul__"))
def _matmul(call: Call, input: Tensor, other: Tensor) -> Tensor | None:
    return contract(call, "matmul", input, other, _matrix_axes(input, other))


@rule(Tensor.__rmatmul__)
def _reflected_matmul(call: Call, input: Tensor, other: Tensor) -> Tensor | None:
    return contract(call, "matmul", other, input, _matrix_axes(other, input))


@rule(*named("addmm", "baddbmm", "addmv"))
def _add_product(
    call: Call, input: Tensor, first: Tensor, second: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor | None:
    label = contract(call, "matmul", first, second, _matrix_axes(first, second))
    return label if label is None or beta == 0 else joined(call, label, call.label(input))


def _matrix_axes(first: Tensor, second: Tensor) -> tuple[Axes, Axes, Axes]:
    """The axes of ``first @ second`` and of its result; batches are counted from the last."""
    batch = list(range(max(first.dim(), second.dim()) - 2, 0, -1))
    left = [*batch[len(batch) - max(0, first.dim() - 2) :], *["row"] * (first.dim() > 1), "inner"]
    right = [*batch[len(batch) - max(0, second.dim() - 2) :], "inner", *["column"] * (second.dim() > 1)]
    return left, right, [*batch, *["row"] * (first.dim() > 1), *["column"] * (second.dim() > 1)]


@rule(torch.einsum)
def _einsum(call: Call, equation: Any, *operands: Any) -> Tensor | None:
    """Of two operands, each axis with a letter of its own."""
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or len(operands) != 2 or "." in equation:
        return None
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    first, _, second = inputs.partition(",")
    if not arrow or any(len(set(letters)) < len(letters) for letters in (first, second)):
        return None
    return contract(call, "einsum", *operands, (first, second, output))
