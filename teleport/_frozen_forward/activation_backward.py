"""Rewrite of the backward passes of activations at fixed inputs: products with a derivative that is computed once."""

from __future__ import annotations

import torch
from torch import Tensor

from teleport._frozen_forward.backward_graph import BackwardGraph

aten = torch.ops.aten

BACKWARDS = {
    *(aten.gelu_backward.default, aten.elu_backward.default, aten.hardswish_backward.default),
    *(aten.softplus_backward.default, aten.log_sigmoid_backward.default),
    *(aten.sigmoid_backward.default, aten.tanh_backward.default),
    *(aten.silu_backward.default, aten.mish_backward.default, aten.hardsigmoid_backward.default),
}
"""Backward functions that multiply a gradient elementwise by a function of fixed tensors, which is costly to compute.

The backward function of ReLU is as cheap as a product. That of hardsigmoid has no derivative in torch (2.13), so that a
network with it can be moved with a frozen forward pass only.
"""


def simplify_activations(graph: BackwardGraph) -> None:
    """Replace each of ``BACKWARDS`` by a product with its derivative, unless it is computed in half precision."""
    for node in graph.nodes:
        gradient, *fixed = node.args
        if node.func not in BACKWARDS or isinstance(gradient, Tensor) or len(node.read) != 1:
            continue
        inputs = next(value for value in fixed if isinstance(value, Tensor))
        if inputs.dtype in (torch.float32, torch.float64):
            derivative = node.func(torch.ones_like(inputs), *fixed, **node.kwargs)
            node.func, node.args, node.kwargs = aten.mul.Tensor, (gradient, derivative), {}
