"""Inputs of full rank, found from a part of them, against the decomposition of all of them and a dense SVD."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teleport._spaces.representation import Extent, Representation

FEW = settings(derandomize=True, max_examples=40, deadline=None)
WIDTH, COUNT = 12, 400


def random(groups=1, seed=0):
    return torch.randn(groups, COUNT, WIDTH, generator=torch.Generator().manual_seed(seed))


def deficient(groups=1, rank=5):
    generator = torch.Generator().manual_seed(1)
    shapes = (groups, COUNT, rank), (groups, rank, WIDTH)
    left, right = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return (left @ right).float()


def with_column(scale):
    """The last element of each vector is ``scale`` times the size of the others."""
    rows = random()
    rows[..., -1] *= scale
    return rows


def with_late_energy(scale):
    """A quarter of ordinary vectors, then vectors along one line that are ``scale`` times as long."""
    rows, line = random(), random(seed=2)[:, :1]
    rows[:, COUNT // 4 :] = scale * random(seed=3)[:, COUNT // 4 :, :1] * line
    return rows


def with_one(value, place):
    rows = random(2)
    rows[1, place, 3] = value
    return rows


def mixed():
    """One group of full rank and one of rank 5."""
    return torch.cat([random(), deficient()])


def representations(rows, ones=False, parts=10, told=False):
    """Of all vectors, and of as many as it takes; their extent may be told, as 1.1 times their squared norm."""
    made = [Representation(WIDTH + ones, rows.shape[0], rows.dtype, ones) for _ in range(2)]
    made[0].update(rows)
    extent = Extent(rows.shape[1], 1.1 * rows.double().square().sum(dim=(1, 2)))
    made[1].update_until_full(lambda: rows.chunk(parts, dim=1), (lambda: extent) if told else None)
    return made


CASES = {  # vectors, the rank of each group, and whether a part of the vectors shows it
    "full": (random(3), [WIDTH] * 3, True),
    "deficient": (deficient(2), [5, 5], False),
    "one group is deficient": (mixed(), [WIDTH, 5], False),
    "ill-conditioned": (with_column(1e-4), [WIDTH], True),
    "near rounding": (with_column(1e-6), [WIDTH], False),
    "below rounding": (with_column(1e-9), [WIDTH - 1], False),
    "1e8 times the energy comes late": (with_late_energy(1e4), [WIDTH], True),
    "1e16 times the energy comes late": (with_late_energy(1e8), [1], False),
    "NaN in the part that shows it": (with_one(float("nan"), 3), [WIDTH] * 2, False),
    "NaN in the rest": (with_one(float("nan"), COUNT - 1), [WIDTH] * 2, True),
    "infinite in the rest": (with_one(float("inf"), COUNT - 1), [WIDTH] * 2, True),
}


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_rank_is_that_of_all_vectors(case, told):
    rows, ranks, enough = CASES[case]
    whole, part = representations(rows, told=told)
    assert part.positions == whole.positions == COUNT
    assert part.finite == whole.finite == bool(rows.isfinite().all())
    found, expected = part.subspace(1.0), whole.subspace(1.0)
    assert found.ranks == expected.ranks == ranks
    assert found.null_dimension == expected.null_dimension == sum(WIDTH - rank for rank in ranks)
    assert (part._full is not None) == enough  # then vectors were left out
    if not enough and whole.finite:  # all vectors are in it
        np.testing.assert_allclose(
            part.spectrum(), whole.spectrum(), rtol=1e-9, atol=1e-12 * float(rows.square().sum())
        )
    if whole.finite and case not in ("near rounding", "below rounding"):  # a clear rank in any way to count it
        resolution = torch.finfo(torch.float32).eps
        singular = np.linalg.svd(rows.double().numpy(), compute_uv=False)
        assert [int((of_group > resolution * of_group[0]).sum()) for of_group in singular] == ranks


@FEW
@given(
    st.integers(1, 3),
    st.integers(1, WIDTH),
    st.floats(-9, 0),
    st.floats(0, 9),
    st.integers(1, 20),
    st.booleans(),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
)
def test_any_vectors_have_the_ranks_of_the_whole_decomposition(groups, rank, small, large, parts, ones, told, dtype):
    rows = deficient(groups, rank)
    rows[..., -1] *= 10**small
    rows[:, COUNT // 3 :, :3] *= 10**large
    whole, part = representations(rows.to(dtype), ones, parts, told)
    assert part.subspace(1.0).ranks == whole.subspace(1.0).ranks
    assert part.positions == whole.positions


def test_parts_of_full_rank_join_those_that_are_not():
    """The inputs of a layer that is called twice: more vectors lower no rank."""
    (_, full), (_, low) = representations(random()), representations(deficient())
    for one, other in ((full, low), (low, full), (full, full)):
        joined = one.merged(other)
        assert joined.subspace(1.0).ranks == [WIDTH]
        assert joined.positions == 2 * COUNT
    assert low.merged(low).subspace(1.0).ranks == [5]


def test_without_all_vectors_there_is_no_spectrum():
    with pytest.raises(ValueError, match="needs all input vectors"):
        representations(random())[1].spectrum()


def test_the_vectors_that_are_left_out_are_read_once():
    """And all of them twice, if those that come late could hide the least direction."""
    for rows, calls in ((random(), 1), (with_late_energy(1e8), 2)):
        read = []

        def parts(rows=rows, read=read):
            read.append(1)
            return rows.chunk(10, dim=1)

        Representation(WIDTH, 1, torch.float32, False).update_until_full(parts)
        assert len(read) == calls
