"""Functions with weights of their own: convolutions, normalisations, embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from teleport._quiver.rules.contractions import with_bias
from teleport._quiver.rules.table import Call, Rule, register_rule
from teleport._quiver.scale_indices import constant

STANDARDISES = "which standardises it"


def _channels(call: Call, input: Tensor, axis: int) -> Tensor:
    """The scale variable of each channel, ``[channels]``."""
    return call.along(call.scale_index(input), axis).flatten()


def _along_axis(variables: Tensor, axis: int, shape: torch.Size) -> Tensor:
    """The scale index of a result that scales with these scale variables along one axis."""
    return variables.reshape([-1 if a == axis % len(shape) else 1 for a in range(len(shape))]).expand(shape)


def _convolution(spatial: int) -> Rule:
    def convolve(
        call: Call,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor | None:
        """A weight ``[out, in / groups, ...]``: each group of rows has input channels of its own."""
        used = call.weight(weight)
        if used is None:
            return None
        call.use(weight)
        columns = _channels(call, input, -spatial - 1).reshape(groups, -1)  # [groups, in / groups]
        read = columns if groups == 1 else columns.repeat_interleave(len(weight) // groups, 0)
        read = read[(..., *[None] * spatial)]
        variables = call.state.produce(f"conv{spatial}d", used, [0], read).flatten()
        return with_bias(call, _along_axis(variables, -spatial - 1, call.result.shape), bias, -spatial - 1)

    return convolve


def _transposed_convolution(spatial: int) -> Rule:
    def convolve(
        call: Call,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Tensor | None:
        """A weight ``[in, out / groups, ...]``: each group of columns has input channels of its own."""
        used = call.weight(weight)
        if used is None:
            return None
        call.use(weight)
        read = _channels(call, input, -spatial - 1).reshape(groups, -1, 1)  # [groups, in / groups, 1]
        grouped = used.unflatten(groups)  # [groups, in / groups, out / groups, ...]
        variables = call.state.produce(f"conv_transpose{spatial}d", grouped, [0, 2], read[(..., *[None] * spatial)])
        return with_bias(call, _along_axis(variables.flatten(), -spatial - 1, call.result.shape), bias, -spatial - 1)

    return convolve


for _spatial in (1, 2, 3):
    register_rule(getattr(F, f"conv{_spatial}d"))(_convolution(_spatial))
    register_rule(getattr(F, f"conv_transpose{_spatial}d"))(_transposed_convolution(_spatial))


def _affine(
    call: Call, kind: str, input: Tensor, weight: Tensor | None, bias: Tensor | None, axes: Sequence[int]
) -> Tensor | None:
    """The input of a standardisation is pinned, because of its eps and its statistics; scale and shift have scale
    variables of their own.

    Args:
        call, kind: of the normalisation.
        input: its input.
        weight, bias: the scale and shift, or ``None``.
        axes: of the result that they vary along.
    """
    call.pin(call.scale_index(input), STANDARDISES)
    shape = call.result.shape
    place = [1] * len(shape)
    for axis in axes:
        place[axis] = shape[axis]
    scale_index = constant(shape)
    used = call.weight(weight)
    if weight is not None and used is not None:
        call.use(weight)
        variables = call.state.produce(kind, used, range(weight.dim()), constant([1] * weight.dim()))
        scale_index = variables.reshape(place).expand(shape)
    elif weight is not None:
        scale_index = call.scale_index(weight).reshape(place).expand(shape)
    if bias is not None:
        call.join(scale_index, call.scale_index(bias).reshape(place).expand(shape))
    return scale_index


@register_rule(F.batch_norm)
def _batch_norm(
    call: Call,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    return _affine(call, "batch norm", input, weight, bias, [1])


@register_rule(F.instance_norm)
def _instance_norm(
    call: Call,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *options: Any,
    **others: Any,
) -> Tensor | None:
    return _affine(call, "instance norm", input, weight, bias, [1])


@register_rule(F.group_norm)
def _group_norm(
    call: Call,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    return _affine(call, "group norm", input, weight, bias, [1])


@register_rule(F.layer_norm)
def _layer_norm(
    call: Call,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    return _affine(call, "layer norm", input, weight, bias, range(-len(normalized_shape), 0))


@register_rule(F.rms_norm)
def _rms_norm(
    call: Call, input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor | None:
    return _affine(call, "rms norm", input, weight, None, range(-len(normalized_shape), 0))


@register_rule(F.embedding)
def _embedding(
    call: Call,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor | None:
    """Rows of a weight ``[words, dim]``, all with the same output scale variables."""
    used = call.weight(weight)
    if used is None or max_norm is not None:
        return None
    call.use(weight)
    variables = call.state.produce("embedding", used, [1], constant((1, 1))).flatten()
    return _along_axis(variables, -1, call.result.shape)
