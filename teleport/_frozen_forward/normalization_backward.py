"""Rewrite of the backward passes of normalizations at fixed inputs: linear maps of the gradient with cheap adjoints.

With ``x`` fixed, ``y`` the normalized inputs and ``w`` the weight, layer norm and batch norm (on its running
statistics) map the gradient ``d`` of their output to ``(P(w d), sum y d, sum d)``, where P is symmetric. The adjoint is
``(u, v, s) -> w P(u) + y v + s``. Autograd's second derivative also computes the parts for inputs and weight.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from teleport._frozen_forward.backward_graph import BackwardGraph

layer_norm = torch.ops.aten.native_layer_norm_backward.default
batch_norm = torch.ops.aten.native_batch_norm_backward.default

Adjoint = Callable[[Tensor | None, Tensor | None, Tensor | None], Tensor | None]
"""From the adjoints of the gradients of input, weight and bias (``None`` for zero) to that of the output gradient."""


def simplify_normalizations(graph: BackwardGraph) -> None:
    """Give each normalization backward pass its adjoint if only the gradient among its arguments changes."""
    for node in graph.nodes:
        if node.func not in (layer_norm, batch_norm) or node.kwargs or len(node.read) != 1:
            continue
        gradient, *fixed = node.args
        tensors = [value for value in fixed if isinstance(value, Tensor)]
        if isinstance(gradient, Tensor) or len({tensor.dtype for tensor in tensors}) > 1:
            continue
        adjoint = _of_layer_norm(*fixed) if node.func is layer_norm else _of_batch_norm(*fixed)
        if adjoint is not None:
            node.args = (gradient, partial(_backward, node.func, fixed), adjoint)
            node.func = _LinearWithAdjoint.apply


def _backward(func: Callable[..., Any], fixed: list[Any], gradient: Tensor) -> Any:
    return func(gradient, *fixed)


def _of_layer_norm(
    inputs: Tensor, shape: list[int], mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None, mask: Any
) -> Adjoint:
    normalized = (inputs - mean) * rstd

    def adjoint(u: Tensor | None, v: Tensor | None, s: Tensor | None) -> Tensor | None:
        through = None
        if u is not None:
            through = layer_norm(u, inputs, shape, mean, rstd, None, None, [True, False, False])[0]
            through = through if weight is None else through * weight
        return _sum(through, normalized, v, s)

    return adjoint


def _of_batch_norm(
    inputs: Tensor,
    weight: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    save_mean: Tensor | None,
    save_invstd: Tensor | None,
    train: bool,
    eps: float,
    mask: Any,
) -> Adjoint | None:
    if train or running_mean is None or running_var is None:
        return None
    channels = (-1, *[1] * (inputs.dim() - 2))
    rstd = (running_var + eps).rsqrt().view(channels)
    normalized = (inputs - running_mean.view(channels)) * rstd
    scale = rstd if weight is None else rstd * weight.view(channels)

    def adjoint(u: Tensor | None, v: Tensor | None, s: Tensor | None) -> Tensor | None:
        v, s = (None if part is None else part.view(channels) for part in (v, s))
        return _sum(None if u is None else u * scale, normalized, v, s)

    return adjoint


def _sum(through: Tensor | None, normalized: Tensor, v: Tensor | None, s: Tensor | None) -> Tensor | None:
    """``through + normalized * v + s``; absent terms are ``None``."""
    if v is not None:
        through = normalized * v if through is None else torch.addcmul(through, normalized, v)
    if s is not None:
        through = s.expand_as(normalized) if through is None else through + s
    return through


class _LinearWithAdjoint(torch.autograd.Function):
    """A linear map of one tensor to three (or ``None``), with its adjoint."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, function: Callable[[Tensor], Any], adjoint: Adjoint) -> Any:
        ctx.set_materialize_grads(False)
        ctx.adjoint = adjoint
        return function(gradient)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor | None) -> tuple[Tensor | None, None, None]:
        return ctx.adjoint(*outer), None, None
