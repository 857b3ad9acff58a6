"""Gram matrices in double precision, and what their Cholesky factors say: the rank of vectors, orthonormal columns.

A Gram matrix ``G = R R^T`` squares the condition number of the vectors R. Its Cholesky factor L therefore gives columns
``R^T L^-T`` that span the same space and are orthonormal to ``eps cond(R)^2`` only; a second factorization, of the Gram
matrix of these columns, makes them orthonormal to rounding (CholeskyQR2, Yamamoto et al. 2015).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Factored(NamedTuple):
    """L of Gram matrices ``L L^T``, and how far ``L^-1`` times the vectors may be from orthonormal."""

    factor: Tensor
    error: float


class FullRank(NamedTuple):
    """Vectors of full rank: per group, a bound below their least squared singular value, and their squared norm."""

    least: Tensor
    energies: Tensor

    def certain(self, dtype: torch.dtype) -> bool:
        """Whether the least singular value is above all that rounding of the vectors could explain."""
        return bool(((self.least / self.energies).sqrt() > _smallest(dtype)).all())


def products(rows: Tensor) -> Tensor:
    """The lower triangle of ``rows rows^T``, ``[groups, n, n]`` of ``[groups, n, m]``."""
    gram = rows.new_zeros(len(rows), rows.shape[1], rows.shape[1])
    add_products(gram, rows)
    return gram


def add_products(gram: Tensor, rows: Tensor) -> None:
    """Add ``rows rows^T`` to the lower triangle, in place, by blocks of it: with four, 5/8 of the multiplications."""
    count = rows.shape[1]
    step = max(1, math.ceil(count / max(1, min(4, count // 48))))
    for start in range(0, count, step):
        end = min(start + step, count)
        gram[:, start:end, :end].baddbmm_(rows[:, start:end], rows[:, :end].transpose(1, 2))


def full_rank(gram: Tensor, dtype: torch.dtype) -> FullRank | None:
    """Of Gram matrices (lower triangles), if all are clearly of full rank; a tenth is left for more vectors."""
    found = _cholesky(gram, dtype)
    if found is None:
        return None
    _, energies, inverse = found
    least = 1 / inverse
    return FullRank(least, energies) if FullRank(least / 100, energies).certain(dtype) else None


def factor(gram: Tensor, dtype: torch.dtype) -> Factored | None:
    """The Cholesky factors of Gram matrices ``[groups, k, k]`` (lower triangles), if all are clearly of full rank.

    ``1 / |L^-1|_F`` bounds the least singular value from below. It must be above all that rounding could explain, of
    the vectors in ``dtype`` (see ``rank``) and of squaring them in double precision.
    """
    found = _cholesky(gram, dtype)
    if found is None:
        return None
    triangle, energies, inverse = found
    least = float((energies * inverse).max()) ** -0.5  # of singular values, to the root of all energy
    if not least > _smallest(dtype):
        return None
    return Factored(triangle, torch.finfo(gram.dtype).eps / least**2)


def orthonormal(rows: Tensor, gram: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Orthonormal columns ``[groups, dimension, n]`` that span the ``rows [groups, n, dimension]``.

    Args:
        rows: vectors, float64.
        gram: the lower triangles of their products.
        dtype: the precision that the vectors were computed in.

    Returns:
        the columns, or ``None`` if the Cholesky factor leaves any doubt that the vectors are independent.
    """
    factored = factor(gram, dtype)
    if factored is None:
        return None
    columns = torch.linalg.solve_triangular(
        factored.factor.transpose(1, 2), rows.transpose(1, 2), upper=True, left=False
    )
    return columns if factored.error <= 1e-3 * torch.finfo(dtype).eps else orthonormal_again(columns)


def orthonormal_again(columns: Tensor) -> Tensor:
    """``columns [groups, dimension, k]`` that are nearly orthonormal, made so to rounding, in place."""
    triangle = torch.linalg.cholesky(products(columns.transpose(1, 2)))
    torch.linalg.solve_triangular(triangle.transpose(1, 2), columns, upper=True, left=False, out=columns)
    return columns


def _cholesky(gram: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor] | None:
    """The Cholesky factors of Gram matrices (lower triangles), their traces and those of their inverses.

    ``None`` if one of them has no factor, or a pivot that shows doubtful rank: the least singular value is no larger.
    """
    triangle, failed = torch.linalg.cholesky_ex(gram)
    energies = gram.diagonal(dim1=1, dim2=2).sum(1)
    pivots = triangle.diagonal(dim1=1, dim2=2).amin(1) / energies.sqrt()
    if bool(failed.any()) or not bool((pivots > _smallest(dtype)).all()):
        return None
    return triangle, energies, _inverse_trace(triangle)


def _inverse_trace(triangle: Tensor) -> Tensor:
    """``|L^-1|_F^2`` of triangular factors L ``[groups, n, n]``.

    The inverse of L is the faster of the two ways up to a few hundred rows: LAPACK's ``potri`` uses one thread.
    """
    if triangle.shape[1] > 512:
        return torch.cholesky_inverse(triangle).diagonal(dim1=1, dim2=2).sum(1)
    identity = torch.eye(triangle.shape[1], dtype=triangle.dtype, device=triangle.device).expand_as(triangle)
    inverse: Tensor = torch.linalg.solve_triangular(triangle, identity, upper=False)
    return inverse.square().sum((1, 2))


def _smallest(dtype: torch.dtype) -> float:
    """The least singular value, to the root of all energy, that rounding in ``dtype`` and squaring cannot explain."""
    return max(1e-6, 2 * torch.finfo(dtype).eps)
