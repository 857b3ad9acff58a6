"""One use of a weight as a linear map on known inputs, and the weight as a matrix."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from teleport._spaces.representation import Extent


@dataclass(frozen=True)
class LinearUse:
    """One use of a weight as a linear map, ``output = matrix @ input (+ bias)`` per group and position.

    Attributes:
        kind: the kind of layer, for reports (``"linear"``, ``"conv2d"``, ...).
        weight: the parameter, or a view of one. ``weight`` as a matrix is ``[groups, out, dimension]``: its leading
            axis split by groups and the rest flattened, then transposed within a group if ``transposed``.
        source: the tensor that the input vectors are taken from, or one that carries their gradient; uses with the same
            ``source`` and ``key`` share a basis.
        rows: yields the input vectors, one chunk ``[groups, positions, dimension]`` at a time, ``dimension`` without
            the 1 of a bias.
        key: the part of the call that, besides ``source``, decides the rows; ``None`` if that is ``kind`` alone.
        bias: the bias parameter ``[groups * out]`` (or a view of one) that is added once per position, or ``None``.
        groups: number of independent blocks of inputs and outputs.
        transposed: whether the weight is stored ``[dimension, out]``.
        extent: the number of input vectors and, per group, an upper bound of their squared norm, if that is cheaper to
            tell than to go through ``rows``.
    """

    kind: str
    weight: Tensor
    source: Tensor
    rows: Callable[[], Iterator[Tensor]]
    key: Hashable = None
    bias: Tensor | None = None
    groups: int = 1
    transposed: bool = False
    extent: Callable[[], Extent] | None = None


def as_matrix(block: Tensor, groups: int, transposed: bool) -> Tensor:
    """A stored weight as matrices ``[groups, out, dimension]`` (a copy if the layout requires one)."""
    matrix = block.reshape(groups, block.shape[0] // groups, block.shape[1:].numel())
    return matrix.transpose(1, 2) if transposed else matrix


def from_matrix(matrix: Tensor, shape: torch.Size, transposed: bool) -> Tensor:
    """The inverse of :func:`as_matrix`: matrices ``[groups, out, dimension]`` in the weight's stored ``shape``."""
    return (matrix.transpose(1, 2) if transposed else matrix).reshape(shape)
