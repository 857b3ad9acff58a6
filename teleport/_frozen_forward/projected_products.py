"""Projection of a layer's direction ``D^T A`` onto the null space, in the cheapest order of products.

With D ``[positions, out]``, A ``[positions, inputs]`` and a basis of k directions, it is computed as ``pi(D^T A)`` or
as ``D^T pi(A)``. If the basis V spans the null space, ``(D^T (A V)) V^T`` is a third order, cheap for small k.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from teleport._spaces.precision import single_is_cut_short
from teleport._spaces.subspace import Subspace
from teleport._tracing.layers import Layer

Survived = Callable[[Tensor, Tensor], bool]
"""Whether more than rounding error survives, given a tensor and its projection (or a tensor of that norm)."""


class Projection:
    """Projection of a layer's direction, for layers without groups.

    Args:
        layer: the layer; if its bias moves too, the last element of each basis vector belongs to the bias.
        subspace: the span of the layer's inputs.
        survived: called per direction; the direction is set to zero if it returns ``False``.
    """

    def __init__(self, layer: Layer, subspace: Subspace, survived: Survived) -> None:
        inputs = layer.dimension - (layer.bias is not None)
        basis = subspace.basis[:, :inputs]  # rows of a basis: not orthonormal; used as factors only
        self._inputs = dataclasses.replace(subspace, basis=basis)
        self._bias = subspace.basis[0, inputs:].T * (1 if subspace.complement else -1)  # [k, 1], or nothing
        self._survived = survived

    def of_product(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """``pi(D^T A)`` for D ``left`` and A ``right``, as ``[out, inputs]`` and, of the bias, ``[out, 0 or 1]``."""
        order = "whole"  # projection last: rounding of a later product could leave the null space
        if not single_is_cut_short(left.device):
            order = self._least_work(len(left), left.shape[1], right.shape[1])
        rows = left.T @ right if order == "whole" else right
        seen = self._inputs.coordinates(rows[None])
        if order == "coordinates":
            if not self._survived(rows, seen):
                return self._nothing(left, right)
            seen = (left.T @ seen[0].to(left.dtype))[None]
        kept, bias = self._inputs.rest(rows[None], seen)[0], (seen[0] @ self._bias.to(seen)).to(rows.dtype)
        if order == "coordinates":
            return kept, bias
        if not self._survived(rows, kept):
            return self._nothing(left, right)
        return (kept, bias) if order == "whole" else (left.T @ kept, left.T @ bias)

    def _least_work(self, positions: int, out: int, inputs: int) -> str:
        """The order with the fewest multiplications: ``whole``, ``rows`` or ``coordinates``."""
        k = self._inputs.basis.shape[2]
        work = {
            "whole": out * inputs * (positions + 2 * k),
            "rows": positions * inputs * (out + 2 * k),
        }
        if self._inputs.complement:
            work["coordinates"] = k * (positions * (inputs + out) + out * inputs)
        return min(work, key=lambda order: work[order])

    def _nothing(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        out = left.shape[1]
        return right.new_zeros(out, right.shape[1]), right.new_zeros(out, self._bias.shape[1])


class _ProjectedProduct(torch.autograd.Function):
    """``D W`` of ``D [positions, out]`` and ``W [out, inputs]``; the derivatives for W and the bias are projected."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, matrix: Tensor, bias: Tensor | None, projection: Projection) -> Tensor:
        ctx.save_for_backward(left, matrix)
        ctx.projection = projection
        ctx.bias = None if bias is None else bias.shape
        return left @ matrix

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        left, matrix = ctx.saved_tensors
        below = outer @ matrix.T if ctx.needs_input_grad[0] else None
        for_matrix, for_bias = ctx.projection.of_product(left, outer)
        return below, for_matrix, None if ctx.bias is None else for_bias.reshape(ctx.bias), None


projected_product = _ProjectedProduct.apply
"""``D W`` of D, W, a bias that moves with W (or ``None``) and the projection of the derivatives for W and the bias."""
