"""Rewrite of the backward passes of convolutions at fixed inputs, with adjoints of as few convolutions as possible.

With inputs x fixed, the backward pass maps the gradient d of the output and the weight W to ``(B_x(d, W), B_W(d, x),
sum d)``, linear in each. The adjoint of ``(u, V, s)`` is ``conv(u, W) + conv(x, V) + s`` for d and ``B_W(d, u)`` for W.
Autograd's second derivative also computes the latter for weights that do not move, with kernels as large as images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from teleport._frozen_forward.backward_graph import BackwardGraph

convolution = torch.ops.aten.convolution.default
convolution_backward = torch.ops.aten.convolution_backward.default


def simplify_convolutions(graph: BackwardGraph) -> None:
    """Give each convolution backward pass its adjoint if its inputs are fixed."""
    for node in graph.nodes:
        if node.func is not convolution_backward or node.kwargs or not isinstance(node.args[1], Tensor):
            continue
        gradient, inputs, weight, bias_sizes, *setting, mask = node.args
        node.func, node.args = _ConvolutionBackward.apply, (gradient, weight, inputs, bias_sizes, mask, *setting)


class _ConvolutionBackward(torch.autograd.Function):
    """The gradients of a convolution's input, weight and bias, ``None`` for those that the ``mask`` excludes.

    The ``setting`` is the arguments of ``aten.convolution`` from the stride on.
    """

    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        weight: Tensor,
        inputs: Tensor,
        bias_sizes: list[int] | None,
        mask: list[bool],
        *setting: Any,
    ) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gradient, weight, inputs)
        ctx.setting = setting
        return convolution_backward(gradient, inputs, weight, bias_sizes, *setting, mask)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor | None, v: Tensor | None, s: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient, weight, inputs = ctx.saved_tensors
        setting = ctx.setting
        for_gradient = for_weight = None
        if ctx.needs_input_grad[0]:
            if v is not None:
                for_gradient = convolution(inputs, v, s, *setting)
            elif s is not None:
                for_gradient = s.view(-1, *[1] * (gradient.dim() - 2)).expand_as(gradient)
            if u is not None:
                through = convolution(u, weight, None, *setting)
                for_gradient = through if for_gradient is None else through.add_(for_gradient)
        if ctx.needs_input_grad[1] and u is not None:
            for_weight = convolution_backward(gradient, u, weight, None, *setting, [False, True, False])[1]
        return for_gradient, for_weight, *[None] * (3 + len(setting))
