"""The space that a layer's inputs span, and the projection on what is left (Wu et al. 2025, equations 3, 11 to 16)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def rank(energies: Tensor, threshold: float, shape: tuple[int, int], dtype: torch.dtype) -> int:
    """How many leading directions of a representation matrix R count as spanned.

    At ``threshold`` 1 it is the numerical rank: a direction counts where its singular value is above what rounding can
    make of nothing. Rounding the inputs to ``dtype`` changes R by at most ``eps(dtype) |R|_F``, decomposing it in
    float64 by about ``max(shape) eps(float64) s_1``. (The usual ``max(shape) eps(dtype) s_1`` is hundreds of times
    looser in single precision; directions that it drops are seen by long steps, and the loss moves.)

    Args:
        energies: squared singular values ``[k]``, float64, descending.
        threshold: tau. 1 is the numerical rank; below 1 it is the smallest k whose leading energies are at least
            ``tau`` of all (equation 3).
        shape: the shape ``(dimension, positions)`` of the representation matrix.
        dtype: what the inputs were computed in.
    """
    if energies.numel() == 0 or energies[0] <= 0:
        return 0
    if threshold >= 1:
        rounding = torch.finfo(dtype).eps * energies.sum().sqrt()
        decomposing = max(shape) * torch.finfo(torch.float64).eps * energies[0].sqrt()
        return int((energies.sqrt() > rounding + decomposing).sum())
    cumulative = energies.cumsum(0)
    return int((cumulative < threshold * cumulative[-1]).sum()) + 1


@dataclass(frozen=True)
class Subspace:
    """What the inputs of a layer span, group by group.

    Attributes:
        ranks: the rank of each group.
        dimension: the length of an input vector.
        basis: orthonormal columns ``[groups, dimension, k]``, zero columns where a group's own rank is below the
            largest: of the spanned space, or of its complement where ``complement`` (the thinner of the two).
        complement: what ``basis`` spans.
    """

    ranks: list[int]
    dimension: int
    basis: Tensor
    complement: bool

    @property
    def rank(self) -> int:
        """The rank over all groups together."""
        return sum(self.ranks)

    @property
    def null_dimension(self) -> int:
        """Dimensions left to move in, over all groups together."""
        return self.dimension * len(self.ranks) - self.rank

    def project(self, matrix: Tensor) -> Tensor:
        """``pi(G) = G - (G U) U^T`` for a ``matrix`` G ``[groups, out, dimension]``: its part that no input sees.

        Computed in float64 whatever G is in: where little of G survives, single precision would leave more of the
        inputs' own directions in the result than of the null space.
        """
        wide = matrix.to(self.basis.dtype)
        basis = self.basis.to(matrix.device)
        seen = (wide @ basis) @ basis.transpose(1, 2)
        return (seen if self.complement else wide - seen).to(matrix.dtype)


def subspace_of(directions: Tensor, energies: Tensor, threshold: float, positions: int, dtype: torch.dtype) -> Subspace:
    """The spanned :class:`Subspace` of an eigendecomposition.

    Args:
        directions: orthonormal columns ``[groups, dimension, m]``, float64, by descending energy. Where
            ``m == dimension`` the complement's basis is among them.
        energies: squared singular values ``[groups, m]``.
        threshold: tau, see :func:`rank`.
        positions: how many input vectors the decomposition is of.
        dtype: what the inputs were computed in.
    """
    groups, dimension, columns = directions.shape
    ranks = [rank(energies[group], threshold, (dimension, positions), dtype) for group in range(groups)]
    number = torch.arange(columns, device=directions.device)
    kept = torch.tensor(ranks, device=directions.device)[:, None, None]
    if columns == dimension and 2 * sum(ranks) > dimension * groups:
        least = min(ranks)
        return Subspace(ranks, dimension, (directions * (number >= kept))[..., least:].contiguous(), True)
    most = max(ranks)
    return Subspace(ranks, dimension, (directions * (number < kept))[..., :most].contiguous(), False)
