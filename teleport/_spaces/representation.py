"""The representation matrix of a layer's inputs, streamed (Wu et al. 2025, equations 8 to 10)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from teleport._spaces.subspace import Subspace, subspace_of

BLOCK = 1 << 20
"""Elements of input vectors that are brought to double precision at a time."""


class Extent(NamedTuple):
    """The number of vectors, and per group an upper bound of their squared norm (float64)."""

    positions: int
    energies: Tensor


class Representation:
    """A summary of a layer's input vectors: enough for their singular values and the space that they span.

    Few vectors are kept unchanged, many only as a ``[dimension, dimension]`` matrix, so that memory does not grow with
    their number. For inputs in half and single precision that is the float64 Gram matrix, which resolves
    their rank; for float64 inputs a Gram matrix would square the condition number away, and the triangular factor of a
    QR decomposition is kept instead.

    Args:
        dimension: the length of an input vector, the 1 of a folded bias included.
        groups: independent groups of inputs.
        dtype: the precision that the inputs were computed in.
        ones: whether a 1 is appended to each vector, for a bias that moves with its weight.
        device: where the vectors are, and the sums over them.
    """

    def __init__(
        self,
        dimension: int,
        groups: int,
        dtype: torch.dtype,
        ones: bool,
        device: torch.device | str = "cpu",
    ) -> None:
        self.dimension = dimension
        self.groups = groups
        self.dtype = dtype
        self.ones = ones
        self.positions = 0
        # [groups, rows, dimension]: the vectors, or a triangular factor of them; None once the Gram matrix replaces
        # them
        self._rows: Tensor | None = torch.zeros(groups, 0, dimension, dtype=torch.float64, device=device)
        self._gram: Tensor | None = None  # [groups, dimension, dimension] float64, its lower triangle
        self._full: _FullRank | None = None  # if all vectors are known to be of full rank from a part of them

    def update(self, rows: Tensor) -> None:
        """Add vectors ``[groups, positions, dimension]`` (without the appended 1).

        Raises:
            ValueError: vectors of another shape.
        """
        expected = (self.groups, self.dimension - self.ones)
        if rows.dim() != 3 or (rows.shape[0], rows.shape[2]) != expected:
            raise ValueError(
                f"input vectors must come as [{expected[0]}, positions, {expected[1]}] (groups, positions, dimension), "
                f"got {list(rows.shape)}"
            )
        self.positions += rows.shape[1]
        step = max(self.dimension, BLOCK // max(1, self.groups * self.dimension), 1)
        whole = self.dtype == torch.float64  # each part would be decomposed again
        for part in [rows.detach()] if whole else torch.split(rows.detach(), step, dim=1):
            vectors = part.new_empty(*part.shape[:2], self.dimension, dtype=torch.float64)
            vectors[..., : part.shape[2]] = part
            vectors[..., part.shape[2] :] = 1
            self._absorb(vectors)

    def update_until_full(
        self, rows: Callable[[], Iterable[Tensor]], extent: Callable[[], Extent] | None = None
    ) -> None:
        """Add the vectors of ``rows()``, but only their squared norms once a part of them is clearly of full rank.

        More vectors raise no singular value's share above rounding, but they do not lower the least singular value
        either. So the rest needs no products. The result serves :meth:`subspace` at threshold 1, not :meth:`spectrum`.

        Args:
            rows: the vectors as of :meth:`update`, in parts; the same at each call.
            extent: of all these vectors, if that is cheaper than to go through them; ``None`` if it is not.
        """
        tested = 2 * self.dimension
        parts = (piece for part in rows() for piece in _growing(part, tested))
        for part in parts:
            self.update(part)
            if self.positions < tested or self.dtype == torch.float64:
                continue
            tested = 4 * self.positions
            full = _full_rank(self._take_gram(), self.dtype)
            if full is not None:
                break
        else:
            return
        if extent is None:
            seen = self.positions
            for part in parts:
                self.positions += part.shape[1]
                full.energies.add_(torch.linalg.vector_norm(part.detach(), dim=(1, 2)).double().square())
            full.energies.add_(self.ones * (self.positions - seen))
        else:
            count, energies = extent()
            self.positions = count
            full = _FullRank(full.least, torch.maximum(full.energies, energies + self.ones * count))
        self._full = full
        if full.certain(self.dtype) or not self.finite:
            return
        self._full, self._gram, self.positions = None, None, 0
        self._rows = full.energies.new_zeros(self.groups, 0, self.dimension)
        for part in rows():
            self.update(part)

    @property
    def finite(self) -> bool:
        """Whether all vectors so far were finite; if not, their span is not defined."""
        if self._full is not None and not bool(self._full.energies.isfinite().all()):
            return False
        return all(bool(kept.sum().isfinite()) for kept in (self._rows, self._gram) if kept is not None)

    def merged(self, other: Representation) -> Representation:
        """The representation of both sets of vectors together."""
        coarser = max(self.dtype, other.dtype, key=lambda dtype: torch.finfo(dtype).eps)
        both = Representation(self.dimension, self.groups, coarser, self.ones)
        both.positions = self.positions + other.positions
        both._rows, both._gram = self._rows, None if self._gram is None else self._gram.clone()
        if other._rows is not None and other._rows.shape[1]:
            both._absorb(other._rows)
        if other._gram is not None:
            both._take_gram().add_(other._gram)
        both._full = self._full or other._full  # more vectors do not lower the rank; at worst, a layer stays
        return both

    def spectrum(self) -> Tensor:
        """Squared singular values of the representation matrix, ``[groups, k]`` float64, descending.

        ``k`` is the smaller of the dimension and the number of vectors.

        Raises:
            ValueError: vectors were added by :meth:`update_until_full`, which left some out.
        """
        if self._full is not None:
            raise ValueError("the spectrum needs all input vectors, and update_until_full left some out")
        return self._decompose()[1]

    def subspace(self, threshold: float) -> Subspace:
        """The space that the vectors span up to ``threshold``, see ``rank``.

        If a vector is not finite, no direction is free.
        """
        if self._full is not None or not self.finite:
            nothing = torch.zeros(self.groups, self.dimension, 0, dtype=torch.float64)
            return Subspace([self.dimension] * self.groups, self.dimension, nothing, complement=True)
        independent = self._independent() if threshold >= 1 and self.dtype != torch.float64 else None
        if independent is not None:
            return independent
        directions, energies = self._decompose()
        return subspace_of(directions, energies, threshold, self.positions, self.dtype)

    def _independent(self) -> Subspace | None:
        """The span of vectors of full rank, found without eigenvectors.

        ``None`` if a Cholesky factor leaves any doubt of their rank.
        """
        if self._gram is not None:
            if _factor(self._gram, self.dtype) is None:
                return None
            nothing = self._gram.new_zeros(self.groups, self.dimension, 0)
            return Subspace([self.dimension] * self.groups, self.dimension, nothing, complement=True)
        assert self._rows is not None
        count = self._rows.shape[1]
        factored = _factor(_products(self._rows), self.dtype) if count else None
        if factored is None:
            return None
        basis = factored.orthonormal(self._rows)
        if factored.error > 1e-3 * torch.finfo(self.dtype).eps:
            again = _factor(_products(basis), self.dtype)
            if again is None:
                return None
            basis = again.orthonormal(basis)
        ranks = [count] * self.groups
        if count == self.dimension:
            return Subspace(ranks, self.dimension, basis.new_zeros(self.groups, count, 0), complement=True)
        return Subspace(ranks, self.dimension, basis.transpose(1, 2), complement=False)

    def _absorb(self, rows: Tensor) -> None:
        few = self._rows is not None and self._rows.shape[1] + rows.shape[1] <= self.dimension
        if self._rows is None or not (few or self.dtype == torch.float64):
            _add_products(self._take_gram(), rows.transpose(1, 2))
            return
        self._rows = torch.cat([self._rows, rows], dim=1) if self._rows.shape[1] else rows
        if not few:
            self._rows = torch.linalg.qr(self._rows, mode="r")[1]

    def _take_gram(self) -> Tensor:
        """Compute the Gram matrix, which replaces the vectors."""
        if self._gram is None:
            assert self._rows is not None
            self._gram, self._rows = _products(self._rows.transpose(1, 2)), None
        return self._gram

    def _decompose(self) -> tuple[Tensor, Tensor]:
        """Left singular vectors ``[groups, dimension, k]`` and squared singular values ``[groups, k]``, descending."""
        if self._gram is not None:
            energies, vectors = torch.linalg.eigh(self._gram)
            return vectors.flip(2), energies.flip(1).clamp_min(0)
        assert self._rows is not None
        if self.dtype == torch.float64 or self._rows.shape[1] == 0:
            return _singular(self._rows)
        return _from_samples(self._rows)


def _growing(part: Tensor, first: int) -> Iterator[Tensor]:
    """The vectors of ``part`` in pieces, the first of at most ``first`` vectors, each next one four times as long."""
    start = 0
    while start < part.shape[1]:
        yield part[:, start : start + first]
        start, first = start + first, 4 * first


class _Factored(NamedTuple):
    """L of Gram matrices ``L L^T``, and how far ``L^-1`` times the vectors may be from orthonormal."""

    factor: Tensor
    error: float

    def orthonormal(self, rows: Tensor) -> Tensor:
        """``L^-1 rows``."""
        basis: Tensor = torch.linalg.solve_triangular(self.factor, rows, upper=False)
        return basis


class _FullRank(NamedTuple):
    """Vectors of full rank: per group, a bound below their least squared singular value, and their squared norm."""

    least: Tensor
    energies: Tensor

    def certain(self, dtype: torch.dtype) -> bool:
        """Whether the least singular value is above all that rounding of the vectors could explain."""
        return bool(((self.least / self.energies).sqrt() > _smallest(dtype)).all())


def _full_rank(gram: Tensor, dtype: torch.dtype) -> _FullRank | None:
    """Of Gram matrices (lower triangles), if all are clearly of full rank; a tenth is left for more vectors."""
    found = _cholesky(gram)
    if found is None:
        return None
    _, energies, inverse = found
    least = 1 / inverse
    return _FullRank(least, energies) if _FullRank(least / 100, energies).certain(dtype) else None


def _cholesky(gram: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """The Cholesky factors of Gram matrices (lower triangles), their traces and those of their inverses.

    ``None`` if one of them has no factor.
    """
    factor, failed = torch.linalg.cholesky_ex(gram)
    if bool(failed.any()):
        return None
    traces = (each.diagonal(dim1=1, dim2=2).sum(1) for each in (gram, torch.cholesky_inverse(factor)))
    return factor, *traces


def _smallest(dtype: torch.dtype) -> float:
    """The least singular value, to the root of all energy, that rounding in ``dtype`` and squaring cannot explain."""
    return max(1e-6, 2 * torch.finfo(dtype).eps)


def _products(rows: Tensor) -> Tensor:
    """The lower triangle of ``rows rows^T``, ``[groups, n, n]`` of ``[groups, n, m]``."""
    gram = rows.new_zeros(len(rows), rows.shape[1], rows.shape[1])
    _add_products(gram, rows)
    return gram


def _add_products(gram: Tensor, rows: Tensor) -> None:
    """Add ``rows rows^T`` to the lower triangle, in place, by blocks of it: with four, 5/8 of the multiplications."""
    count = rows.shape[1]
    step = 64 * math.ceil(count / 256)
    for start in range(0, count, step):
        end = min(start + step, count)
        gram[:, start:end, :end] += rows[:, start:end] @ rows[:, :end].transpose(1, 2)


def _factor(gram: Tensor, dtype: torch.dtype) -> _Factored | None:
    """The Cholesky factors of Gram matrices ``[groups, k, k]`` (lower triangles), if all are clearly of full rank.

    ``1 / |L^-1|_F`` bounds the least singular value from below. It must be above all that rounding could explain, of
    the vectors in ``dtype`` (see ``rank``) and of squaring them in double precision.
    """
    found = _cholesky(gram)
    if found is None:
        return None
    factor, energies, inverse = found
    least = float((energies * inverse).max()) ** -0.5  # of singular values, to the root of all energy
    if not least > _smallest(dtype):
        return None
    return _Factored(factor, torch.finfo(gram.dtype).eps / least**2)


def _singular(rows: Tensor) -> tuple[Tensor, Tensor]:
    _, singular_values, right = torch.linalg.svd(rows, full_matrices=False)
    return right.transpose(1, 2), singular_values.square()


def _from_samples(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The decomposition on the side of the samples: eigenvectors of ``rows rows^T [n, n]``, mapped back to the inputs'.

    Dividing by a singular value below the square root of float64's resolution would blow up rounding errors: rows of
    deficient rank are decomposed themselves. A last QR makes the directions orthonormal to float64's resolution.
    """
    energies, vectors = torch.linalg.eigh(_products(rows))
    energies, vectors = energies.flip(1).clamp_min(0), vectors.flip(2)
    if bool((energies[:, -1] < energies[:, 0] * 1e-12).any()):
        return _singular(rows)
    return torch.linalg.qr(rows.transpose(1, 2) @ (vectors / energies.sqrt()[:, None, :]))[0], energies
