"""The leading left singular vectors of few vectors, from eigenvectors of their Gram matrices.

An eigendecomposition of ``R R^T`` finds singular values down to 3e-4 of the largest to eight digits, as squaring takes
half of float64's sixteen. The vectors that are left are brought into their own coordinates and decomposed in turn: each
pass adds more than three decades, and its directions are made orthogonal to those of the passes before. What is left
has errors of 1e-12 of the largest singular value, far below the rounding of inputs in single precision. Two passes are
cheaper than a singular value decomposition, and inputs of clearly deficient rank need one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from teleport._spaces.gram import orthonormal_again, products

RESOLVED = 1e-7
"""The squared singular values that a pass finds, to the largest."""

EPS = torch.finfo(torch.float64).eps


def decomposed(rows: Tensor, gram: Tensor, negligible: float) -> tuple[Tensor, Tensor]:
    """The left singular vectors of a representation matrix as rows ``[k, dimension]``, and its squared values ``[n]``.

    Args:
        rows: its columns, ``[n, dimension]``, float64 and finite, at most as many as the dimension.
        gram: the lower triangle of their products.
        negligible: no vectors are needed of squared singular values below this.

    Returns:
        the vectors and the values, both by descending value. All values above ``negligible`` have vectors.
    """
    found, energies, rest = rows[:0], list[Tensor](), rows
    rounding = (4 * EPS) ** 2 * float(gram.trace())
    while len(rest):
        values, vectors = torch.linalg.eigh(gram)
        values, coordinates = values.flip(0).clamp_min(0), vectors.T.flip(0)
        if float(values[0]) <= rounding:
            energies.append(values)
            break
        kept = int((values >= RESOLVED * values[0]).sum())
        energies.append(values[:kept])
        directions = _without(found, (coordinates[:kept] / values[:kept, None].sqrt()) @ rest)
        orthonormal_again(directions.T[None])
        found = torch.cat([found, directions]) if len(found) else directions
        if kept < len(values) and float(values[kept] + 16 * EPS * values.sum()) <= negligible:
            energies.append(values[kept:])
            break
        rest = coordinates[kept:] @ rest
        gram = products(rest[None])[0]
    return found, torch.cat(energies) if energies else rows.new_zeros(0)


def extended(rows: Tensor) -> Tensor:
    """Orthonormal ``rows [k, dimension]``, and behind them those of their complement: ``[dimension, dimension]``."""
    count, dimension = rows.shape
    last = torch.eye(dimension, dtype=rows.dtype, device=rows.device)[:, count:]
    return torch.cat([rows, torch.ormqr(*torch.geqrf(rows.T), last).T])


def _without(found: Tensor, rows: Tensor) -> Tensor:
    """``rows`` without their parts along the orthonormal ones ``found``, in place."""
    return rows.addmm_(rows @ found.T, found, alpha=-1) if len(found) else rows
