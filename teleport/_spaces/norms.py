"""Sums over the elements of many tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor


def half_squared_norm(gradients: Iterable[Tensor]) -> Tensor:
    """``L_tel = 1/2 |grad_W L|^2`` (Wu et al. 2025, equation 4), a scalar, differentiable if they are.

    Half precision is summed in single: squares of gradients leave its range.
    """
    total = sum(_at_least_single(gradient).square().sum() for gradient in gradients)
    assert isinstance(total, Tensor)
    return total / 2


def inner(one: Iterable[Tensor], other: Iterable[Tensor]) -> Tensor:
    """``<one, other>`` over all their elements, a scalar; half precision is summed in single."""
    pairs = zip(one, other, strict=True)
    total = sum((_at_least_single(left) * _at_least_single(right)).sum() for left, right in pairs)
    assert isinstance(total, Tensor)
    return total


def product_of(one: Iterable[Tensor], other: Iterable[Tensor]) -> float:
    """``<one, other>`` as a number, summed in float64 if it is near the ends of the range of single precision."""
    left, right = list(one), list(other)
    product = float(inner(left, right))
    if 1e-30 < abs(product) < 1e30:
        return product
    return float(inner(map(_double, left), map(_double, right)))


def length_of(tensors: Iterable[Tensor]) -> float:
    """The norm of all elements of the tensors together, in float64 if its square nears the ends of single precision."""
    parts = list(tensors)
    return math.sqrt(product_of(parts, parts))


LONG = 2**16
"""The largest number of elements whose norm torch computes in single precision with an error of about 1e-5 at most."""


def norm_of(tensor: Tensor) -> float:
    """``|tensor|`` over all its elements.

    In single precision, or in the tensor's own if that is higher, while squares stay within its range; else in float64.
    Long tensors are summed as squares: torch's float32 norm on the CPU has one running sum per lane, and is off by up
    to 1 % on 2^24 and more elements (torch 2.13.0, ``findings/vector-norm-float32-cpu.sh``).
    """
    tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    norm = float(tensor.square().sum().sqrt() if tensor.numel() > LONG else torch.linalg.vector_norm(tensor))
    return norm if 1e-15 < norm < 1e15 else float(torch.linalg.vector_norm(tensor.double()))


def joint_norm(tensors: Iterable[Tensor]) -> float:
    """The norm of all elements of the tensors together, 0 of none.

    In single precision, or in the tensors' own if that is higher, while squares stay within its range; else in float64.
    """
    parts = list(tensors)
    norm = float(inner(parts, parts).sqrt()) if parts else 0.0
    if parts and not 1e-15 < norm < 1e15:
        parts = list(map(_double, parts))
        norm = float(inner(parts, parts).sqrt())
    return norm


def _double(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float64))


def _at_least_single(gradient: Tensor) -> Tensor:
    gradient = gradient.to_dense() if gradient.layout is not torch.strided else gradient
    gradient = torch.view_as_real(gradient) if gradient.is_complex() else gradient
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32))
