"""Gram rewrite of a backward graph: products of matrices replaced by cheaper equivalents.

- A weight's gradient ``D^T X`` with fixed inputs X enters the norm as ``|D^T X|^2 = <D, (X X^T) D>``. With fewer
  positions than twice the inputs, this costs less than the gradient and its adjoint, and the gradient itself is never
  formed.
- The direction of a layer, ``D^T A``, is projected in the order of least work (``projected_products.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from teleport._frozen_forward.backward_graph import COPIES, BackwardGraph, GraphNode, Slot
from teleport._frozen_forward.projected_products import Projection, projected_product
from teleport._frozen_forward.recorded_graph import value_of
from teleport._spaces.norms import half_squared_norm
from teleport._tracing.layers import Layer
from teleport._tracing.linear_use import as_matrix

mm = torch.ops.aten.mm.default


def half_squares(graph: BackwardGraph) -> tuple[list[Slot], Tensor | None]:
    """``1/2 |g|^2``: a slot per recomputed gradient, and the sum over fixed gradients (``None`` if there are none)."""
    readers = [number for node in graph.nodes for number in node.read]
    makers = {number: node for node in graph.nodes for number in node.made if number is not None}
    readers += [gradient for gradient in graph.gradients if isinstance(gradient, int)]
    slots, fixed = [], []
    for gradient in graph.gradients:
        if isinstance(gradient, Tensor):
            fixed.append(gradient)
            continue
        alone = readers.count(gradient) == 1
        factors = _gram_factors(makers[gradient]) if alone else None
        if factors is None:
            slots.append(graph.append(_HalfSquare.apply, Slot(gradient)))
        else:
            graph.nodes.remove(makers[gradient])
            slots.append(graph.append(_HalfGramSquare.apply, *factors))
    return slots, half_squared_norm(fixed) if fixed else None


def project_by_gram(graph: BackwardGraph, layer: Layer, projection: Projection) -> bool:
    """Project the derivatives with respect to a layer's weight and bias inside the products that the weight enters.

    Returns:
        whether that is possible for all uses of the weight; if not, the graph is unchanged.
    """
    weight = layer.weight.within(layer.weight.parameter.detach())
    matrix = graph.slots.get(value_of(as_matrix(weight, layer.groups, layer.transposed)[0]))
    if matrix is None or layer.groups > 1 or any(block.shape != block.parameter.shape for block in layer.blocks):
        return False
    # slots of the layer's parameters and of their views
    own = {graph.inputs[block.parameter] for block in layer.blocks}
    products = []
    for node in graph.nodes:
        if own.isdisjoint(node.read):
            continue
        if getattr(node.func, "is_view", False) or node.func in COPIES:
            own.update(number for number in node.made if number is not None)
        elif node.func is mm and node.args[1] == Slot(matrix) and node.read.count(matrix) == 1:
            products.append(node)
        else:
            return False
    bias = None if layer.bias is None else Slot(graph.inputs[layer.bias.parameter])
    for node in products:
        node.func, node.args = projected_product, (*node.args, bias, projection)
    return True


def _gram_factors(node: GraphNode) -> tuple[Any, Tensor, bool] | None:
    """D, K and whether D is transposed, of a ``node`` that computes ``D^T X``; ``None`` if ``<D, K D>`` costs more."""
    if node.func is not mm or node.kwargs:
        return None
    left, right = node.args
    if isinstance(left, Tensor):
        fixed, other, transposed = left.T, right, False
    elif isinstance(right, Tensor):
        fixed, other, transposed = right, left, True
    else:
        return None
    positions, inputs = fixed.shape
    if positions >= 2 * inputs or fixed.dtype not in (torch.float32, torch.float64):
        return None
    return other, fixed @ fixed.T, transposed


class _HalfSquare(torch.autograd.Function):
    """``1/2 |g|^2``, whose derivative is ``g``."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return half_squared_norm([gradient])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> Tensor:
        gradient: Tensor = ctx.saved_tensors[0]
        return outer.to(gradient.dtype) * gradient


class _HalfGramSquare(torch.autograd.Function):
    """``1/2 <D, K D>`` with K symmetric (``D^T`` given where ``transposed``), whose derivative is ``K D``."""

    @staticmethod
    def forward(ctx: Any, factor: Tensor, gram: Tensor, transposed: bool) -> Tensor:
        # in the layout of the factor: elementwise products of mixed layouts are many times slower
        if factor.is_contiguous():
            product = factor @ gram if transposed else gram @ factor
        else:
            product = (gram @ factor.T if transposed else factor.T @ gram).T
        ctx.save_for_backward(product)
        return (factor * product).sum() / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        product: Tensor = ctx.saved_tensors[0]
        return outer * product, None, None
