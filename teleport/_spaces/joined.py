"""Representations of the layer inputs of several processes, joined: those of all their vectors together.

Gram matrices are added. Vectors that are few, and triangular factors in float64, are gathered, so that a group keeps
the precision of one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from teleport._processes.group import Group
from teleport._spaces.gram import FullRank
from teleport._spaces.representation import Representation


class _Summary(NamedTuple):
    """What the ranks tell each other of a representation: the number of its vectors, and what it keeps of them."""

    positions: int
    rows: int | None  # None if it keeps their Gram matrix
    full: FullRank | None
    finite: bool


def joined(group: Group, representations: Sequence[Representation]) -> list[Representation]:
    """Each representation over the vectors of all ranks.

    Args:
        group: of the processes.
        representations: of the same layers on all ranks, in the same order.
    """
    if group.alone or not representations:
        return list(representations)
    everyone = group.gathered([_summary(each) for each in representations])
    of_each = zip(representations, zip(*everyone, strict=True), strict=True)
    return [_joined(group, own, ranks) for own, ranks in of_each]


def _summary(own: Representation) -> _Summary:
    full = own._full
    here = None if full is None else FullRank(full.least.cpu(), full.energies.cpu())
    return _Summary(own.positions, None if own._rows is None else own._rows.shape[1], here, own.finite)


def _joined(group: Group, own: Representation, ranks: Sequence[_Summary]) -> Representation:
    both = Representation(own.dimension, own.groups, own.dtype, own.ones)
    both.positions = sum(rank.positions for rank in ranks)
    full = next((rank.full for rank in ranks if rank.full is not None), None)
    if full is not None:  # more vectors do not lower the rank
        finite = all(rank.finite for rank in ranks)
        both._rows, both._full = None, full if finite else FullRank(full.least, full.energies * torch.nan)
        return both
    counts = [rank.rows for rank in ranks]
    single = own.dtype != torch.float64
    if None in counts or (single and sum(filter(None, counts)) > own.dimension):
        gram = own.gram if own._gram is None else own._gram
        both._rows, both._gram = None, group.sum(gram)
        return both
    assert own._rows is not None
    rows = group.joined(own._rows, dim=1)
    if rows.shape[1] > own.dimension:
        rows = torch.linalg.qr(rows, mode="r")[1]
    both._rows = rows
    return both
