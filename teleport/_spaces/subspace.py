"""The span of a layer's inputs, and the projection on its complement (Wu et al. 2025, equations 3, 11 to 16)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from teleport._spaces.norms import norm_of
from teleport._spaces.precision import single_is_cut_short


def rank(energies: Tensor, threshold: float, shape: tuple[int, int], dtype: torch.dtype) -> int:
    """How many leading directions of a representation matrix R count as spanned.

    At ``threshold`` 1 it is the numerical rank: a direction counts if its singular value exceeds the effect of
    rounding. Rounding the inputs to ``dtype`` changes R by at most ``eps(dtype) |R|_F``, decomposing it in
    float64 by about ``max(shape) eps(float64) s_1``. (The usual ``max(shape) eps(dtype) s_1`` is hundreds of times
    looser in single precision; directions that it drops are seen by long steps, and the loss moves.)

    Args:
        energies: squared singular values ``[k]``, float64, descending.
        threshold: tau. 1 is the numerical rank; below 1 it is the smallest k whose leading energies are at least
            ``tau`` of all (equation 3).
        shape: the shape ``(dimension, positions)`` of the representation matrix.
        dtype: the precision of the inputs.
    """
    if energies.numel() == 0 or energies[0] <= 0:
        return 0
    if threshold >= 1:
        rounding = torch.finfo(dtype).eps * energies.sum().sqrt()
        decomposing = max(shape) * torch.finfo(torch.float64).eps * energies[0].sqrt()
        return int((energies.sqrt() > rounding + decomposing).sum())
    cumulative = energies.cumsum(0)
    return int((cumulative < threshold * cumulative[-1]).sum()) + 1


def negligible(energy: float, threshold: float, count: int, dtype: torch.dtype) -> float:
    """A squared singular value below which no direction counts in :func:`rank`.

    Args:
        energy: the sum of all squared singular values.
        threshold: tau.
        count: how many there are.
        dtype: the precision of the inputs.
    """
    if threshold >= 1:
        return torch.finfo(dtype).eps ** 2 * energy
    return (1 - threshold) * energy / (2 * count)  # all of them together are half of what may be left out


@dataclass(frozen=True)
class Subspace:
    """The span of the inputs of a layer, per group.

    Attributes:
        ranks: the rank of each group.
        dimension: the length of an input vector.
        basis: orthonormal columns ``[groups, dimension, k]``, zero columns if the rank of a group is below the
            largest: of the spanned space, or of its complement if ``complement`` (the one of lower dimension).
        complement: whether ``basis`` spans the complement.
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
        """Dimensions of the null space, over all groups together."""
        return self.dimension * len(self.ranks) - self.rank

    def coordinates(self, matrix: Tensor) -> Tensor:
        """``G U``: how much of a ``matrix`` G ``[groups, out, dimension]`` lies along the basis, ``[groups, out, k]``.

        In float64 for any precision of G: the rounding error of such a sum over a row is common to all inputs along a
        direction, and reaches the output of the layer first.
        """
        return matrix.to(self.basis.dtype) @ self.basis.to(matrix.device)

    def project(self, matrix: Tensor) -> Tensor:
        """``pi(G) = G - (G U) U^T`` for a ``matrix`` G ``[groups, out, dimension]``: its part in the null space."""
        return self.rest(matrix, self.coordinates(matrix))

    def rest(self, matrix: Tensor, coordinates: Tensor) -> Tensor:
        """``pi(G)`` of a ``matrix`` G and its :meth:`coordinates`, in single precision if G is.

        Each element then has an error of its own, of a few units in the last place of what is taken away. That is
        below the rounding errors of a layer's outputs, unless little of G survives; then the subtraction is done in
        float64. It is always done in float64 if products of single precision are computed with less.
        """
        exact = coordinates.dtype
        working = torch.promote_types(matrix.dtype, exact if single_is_cut_short(matrix.device) else torch.float32)
        across = self.basis.to(matrix.device, working).transpose(1, 2)
        if self.complement:
            return (coordinates.to(working) @ across).to(matrix.dtype)
        kept = torch.baddbmm(matrix.to(working), coordinates.to(working), across, alpha=-1)
        if working != exact and 4 * norm_of(kept) < norm_of(coordinates):
            kept = matrix.to(exact) - coordinates @ self.basis.to(matrix.device).transpose(1, 2)
        return kept.to(matrix.dtype)


def subspace_of(directions: Tensor, energies: Tensor, threshold: float, positions: int, dtype: torch.dtype) -> Subspace:
    """The spanned :class:`Subspace` of an eigendecomposition.

    Args:
        directions: orthonormal columns ``[groups, dimension, m]``, float64, by descending energy: of all energies that
            count. If ``m == dimension``, the basis of the complement is among them.
        energies: squared singular values ``[groups, n]``.
        threshold: tau, see :func:`rank`.
        positions: the number of input vectors.
        dtype: the precision of the inputs.
    """
    groups, dimension, columns = directions.shape
    ranks = [rank(energies[group], threshold, (dimension, positions), dtype) for group in range(groups)]
    number = torch.arange(columns, device=directions.device)
    kept = torch.tensor(ranks, device=directions.device)[:, None, None]
    if columns == dimension and 2 * sum(ranks) > dimension * groups:
        least = min(ranks)
        return Subspace(ranks, dimension, (directions * (number >= kept))[..., least:].contiguous(), True)
    most = max(ranks)
    if min(ranks) < most:
        directions = directions * (number < kept)
    spanned = directions if most == columns else directions[..., :most].clone()  # a view would keep all of them
    return Subspace(ranks, dimension, spanned, False)
