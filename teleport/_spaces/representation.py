"""The representation matrix of a layer's inputs, streamed (Wu et al. 2025, equations 8 to 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from teleport._spaces.gram import FullRank, add_products, factor, full_rank, orthonormal, products
from teleport._spaces.sample_side import decomposed, extended
from teleport._spaces.subspace import Subspace, negligible, subspace_of

BLOCK = 1 << 20
"""Elements of input vectors that are brought to double precision at a time."""

FEW = 48
"""The largest number of vectors whose singular value decomposition costs no more than those of their Gram matrices."""


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
        self._full: FullRank | None = None  # if all vectors are known to be of full rank from a part of them

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
            full = full_rank(self._take_gram(), self.dtype)
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
            full = FullRank(full.least, torch.maximum(full.energies, energies + self.ones * count))
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

    @property
    def rows(self) -> Tensor | None:
        """``[groups, n, dimension]`` float64 with the same second moment: the vectors if they are few, else a factor.

        ``None`` if there is only :attr:`gram`.
        """
        return self._rows

    @property
    def gram(self) -> Tensor:
        """The second moment ``sum x x^T`` of the vectors, ``[groups, dimension, dimension]`` float64."""
        lower = products(self._rows.transpose(1, 2)) if self._rows is not None else self._gram
        assert lower is not None
        return lower.tril() + lower.tril(-1).transpose(1, 2)

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
        return self._decompose(None, self._products())[1]

    def subspace(self, threshold: float) -> Subspace:
        """The space that the vectors span up to ``threshold``, see ``rank``.

        If a vector is not finite, no direction is free.
        """
        gram = None if self._full is not None else self._products()
        finite = self.finite if gram is None else bool(gram.diagonal(dim1=1, dim2=2).sum().isfinite())
        if self._full is not None or not finite:
            nothing = torch.zeros(self.groups, self.dimension, 0, dtype=torch.float64)
            return Subspace([self.dimension] * self.groups, self.dimension, nothing, complement=True)
        if gram is not None and threshold >= 1:
            independent = self._independent(gram)
            if independent is not None:
                return independent
        directions, energies = self._decompose(threshold, gram)
        return subspace_of(directions, energies, threshold, self.positions, self.dtype)

    def _products(self) -> Tensor | None:
        """The Gram matrix of the vectors' elements or of the vectors; ``None`` if it would not resolve their rank."""
        if self._gram is not None:
            return self._gram
        assert self._rows is not None
        return products(self._rows) if self._rows.shape[1] and self.dtype != torch.float64 else None

    def _independent(self, gram: Tensor) -> Subspace | None:
        """The span of vectors of full rank, found without eigenvectors.

        ``None`` if a Cholesky factor of their Gram matrix leaves any doubt of their rank.
        """
        full, nothing = [self.dimension] * self.groups, gram.new_zeros(self.groups, self.dimension, 0)
        if self._rows is None or self._rows.shape[1] == self.dimension:
            found = factor(gram, self.dtype)
            return None if found is None else Subspace(full, self.dimension, nothing, complement=True)
        basis = orthonormal(self._rows, gram, self.dtype)
        ranks = [self._rows.shape[1]] * self.groups
        return None if basis is None else Subspace(ranks, self.dimension, basis, complement=False)

    def _absorb(self, rows: Tensor) -> None:
        few = self._rows is not None and self._rows.shape[1] + rows.shape[1] <= self.dimension
        if self._rows is None or not (few or self.dtype == torch.float64):
            add_products(self._take_gram(), rows.transpose(1, 2))
            return
        self._rows = torch.cat([self._rows, rows], dim=1) if self._rows.shape[1] else rows
        if not few:
            self._rows = torch.linalg.qr(self._rows, mode="r")[1]

    def _take_gram(self) -> Tensor:
        """Compute the Gram matrix, which replaces the vectors."""
        if self._gram is None:
            assert self._rows is not None
            self._gram, self._rows = products(self._rows.transpose(1, 2)), None
        return self._gram

    def _decompose(self, threshold: float | None, gram: Tensor | None) -> tuple[Tensor, Tensor]:
        """Left singular vectors ``[groups, dimension, k]`` and squared singular values ``[groups, m]``, descending.

        Args:
            threshold: the vectors are those that count at it, and maybe more; ``None`` for all of them.
            gram: of :meth:`_products`.
        """
        if self._gram is not None:
            energies, vectors = torch.linalg.eigh(self._gram)
            return vectors.flip(2), energies.flip(1).clamp_min(0)
        assert self._rows is not None
        if gram is None or gram.shape[1] <= FEW:
            return _singular(self._rows)
        least = [0.0] * self.groups
        if threshold is not None:
            least = [negligible(float(each.trace()), threshold, len(each), self.dtype) for each in gram]
        found = [decomposed(*each) for each in zip(self._rows, gram, least, strict=True)]
        directions = [each for each, _ in found]
        if gram.shape[1] == self.dimension and 2 * sum(map(len, directions)) > self.dimension * self.groups:
            directions = [extended(each) for each in directions]
        columns = (
            torch.nn.utils.rnn.pad_sequence(directions, batch_first=True) if self.groups > 1 else directions[0][None]
        )
        return columns.transpose(1, 2), torch.stack([energies for _, energies in found])


def _growing(part: Tensor, first: int) -> Iterator[Tensor]:
    """The vectors of ``part`` in pieces, the first of at most ``first`` vectors, each next one four times as long."""
    start = 0
    while start < part.shape[1]:
        yield part[:, start : start + first]
        start, first = start + first, 4 * first


def _singular(rows: Tensor) -> tuple[Tensor, Tensor]:
    _, singular_values, right = torch.linalg.svd(rows, full_matrices=False)
    return right.transpose(1, 2), singular_values.square()
