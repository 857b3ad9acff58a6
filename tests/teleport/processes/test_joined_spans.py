"""What the layer inputs of two processes span together, against all of them in one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from teleport import Representation
from teleport._processes.ranks import group_of
from teleport._spaces.joined import joined
from tests.teleport.processes.spawned import results_of_ranks

pytestmark = pytest.mark.slow

CASES = {
    (str(dtype).removeprefix("torch."), counts, rank): (dtype, counts, rank)
    for dtype in (torch.float32, torch.float64)
    for counts in ((3, 5), (7, 9), (4, 40), (40, 50), (0, 6), (400, 300))
    for rank in (6, 12)
}
"""Vectors of 12 elements: a few, or many on one rank or on both, in a space of ``rank`` dimensions."""


def vectors(case: tuple[torch.dtype, tuple[int, int], int]) -> list[Tensor]:
    """``[1, positions, 12]`` of each rank."""
    dtype, counts, rank = case
    source = torch.Generator().manual_seed(sum(counts) + rank)
    space = torch.randint(-3, 4, (rank, 12), generator=source).double()  # exact in single precision
    return [(torch.randint(-4, 5, (1, count, rank), generator=source).double() @ space).to(dtype) for count in counts]


def represented(parts: list[Tensor], until_full: bool) -> Representation:
    own = Representation(12, 1, parts[0].dtype, False)
    if until_full:
        own.update_until_full(lambda: parts)
    else:
        for part in parts:
            own.update(part)
    return own


def found(own: Representation) -> tuple[int, Tensor, int]:
    """The rank, the projection on the null space, and the number of vectors."""
    subspace = own.subspace(1.0)
    return subspace.rank, subspace.project(torch.eye(12, dtype=torch.float64)[None])[0], own.positions


def all_joined(rank: int, size: int) -> dict[Any, Any]:
    group = group_of(None, torch.nn.Linear(1, 1))
    results = {}
    for until_full in (False, True):
        own = [represented([vectors(case)[rank]], until_full) for case in CASES.values()]
        results |= {(*name, until_full): found(each) for name, each in zip(CASES, joined(group, own), strict=True)}
    return results


@pytest.fixture(scope="module")
def ranks():
    return results_of_ranks(all_joined, 2)


@pytest.mark.parametrize("until_full", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_two_processes_find_the_span_of_all_vectors(ranks, name, until_full):
    (first, projection, count), second = (rank[(*name, until_full)] for rank in ranks)
    assert torch.equal(second[1], projection)
    assert (second[0], second[2]) == (first, count)
    expected_rank, expected, expected_count = found(represented(vectors(CASES[name]), False))
    assert (first, count) == (expected_rank, expected_count)
    torch.testing.assert_close(projection, expected, atol=1e-10, rtol=0)
