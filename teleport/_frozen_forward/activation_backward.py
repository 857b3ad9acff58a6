"""Backward passes of activations on fixed inputs: products with a derivative that is computed once."""

from __future__ import annotations

import torch
from torch import Tensor

from teleport._frozen_forward.backward_graph import BackwardGraph

aten = torch.ops.aten

BACKWARDS = {
    *(aten.gelu_backward.default, aten.elu_backward.default, aten.hardswish_backward.default),
    *(aten.softplus_backward.default, aten.log_sigmoid_backward.default),
    *(aten.sigmoid_backward.default, aten.tanh_backward.default),
}
"""Functions of a gradient and of fixed tensors of its shape that multiply it element by element, at some cost.

The ones that only let through or not (ReLU's) are as cheap as a product; others (SiLU's) are recorded as products.
"""


def simplify_activations(graph: BackwardGraph) -> None:
    """Replace backward passes that are products with a fixed tensor by that product, except in half precision."""
    for call in graph.calls:
        gradient, *fixed = call.args
        if call.func not in BACKWARDS or isinstance(gradient, Tensor) or len(call.read) != 1:
            continue
        held = next(value for value in fixed if isinstance(value, Tensor))
        if held.dtype in (torch.float32, torch.float64):
            derivative = call.func(torch.ones_like(held), *fixed, **call.kwargs)
            call.func, call.args, call.kwargs = aten.mul.Tensor, (gradient, derivative), {}
