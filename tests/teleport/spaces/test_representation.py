"""Streamed representations against a dense SVD of all vectors at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teleport._spaces import representation
from teleport._spaces.representation import Representation
from tests.teleport.reference import null_projection

FEW = settings(derandomize=True, max_examples=25, deadline=None)


def streamed(rows, chunks, ones=False, merged=False):
    """The representation of ``rows [groups, n, d]`` added in ``chunks`` parts, or merged from them."""
    groups, _, dimension = rows.shape
    parts = [Representation(dimension + ones, groups, rows.dtype, ones) for _ in range(chunks if merged else 1)]
    for index, part in enumerate(rows.chunk(chunks, dim=1)):
        parts[index if merged else 0].update(part)
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merged(part)
    return whole


def dense(rows, ones=False):
    rows = rows.double().numpy()
    return np.concatenate([rows, np.ones((*rows.shape[:2], 1))], 2) if ones else rows


@st.composite
def vectors(draw):
    """Vectors of a known rank well above rounding: ``[groups, n, d]`` in single or double precision."""
    groups, n, dimension = draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(1, 12))
    rank = draw(st.integers(0, min(n, dimension)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    left, right = (
        torch.randn(groups, *shape, generator=generator).double() for shape in ((n, rank), (rank, dimension))
    )
    return (left @ right).to(draw(st.sampled_from([torch.float32, torch.float64])))


@FEW
@given(vectors(), st.integers(1, 5), st.booleans(), st.booleans())
def test_energies_and_projection_match_a_dense_svd(rows, chunks, ones, merged):
    streamed_rows = streamed(rows, chunks, ones, merged)
    assert streamed_rows.positions == rows.shape[1]
    matrices = dense(rows, ones)
    expected = np.linalg.svd(matrices, compute_uv=False) ** 2
    energies = streamed_rows.spectrum().numpy()
    count = min(expected.shape[1], energies.shape[1])
    np.testing.assert_allclose(energies[:, :count], expected[:, :count], atol=1e-9 * max(1.0, expected.max()))
    subspace = streamed_rows.subspace(1.0)
    identity = torch.eye(streamed_rows.dimension, dtype=torch.float64).expand(streamed_rows.groups, -1, -1)
    projection = subspace.project(identity).numpy()
    for group, matrix in enumerate(matrices):
        # the rank in exact numbers if rounding to the vectors' precision added directions of noise
        tolerance = 1e-10 if rows.dtype == torch.float64 else 1e-5
        reference = null_projection(matrix, tolerance) if matrix.any() else np.eye(streamed_rows.dimension)
        np.testing.assert_allclose(projection[group], reference, atol=1e-4 if rows.dtype == torch.float32 else 1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("n", [5, 30, 31, 200])
def test_no_vector_in_the_null_space(dtype, n):
    rows = torch.randn(1, n, 30).to(dtype)
    subspace = streamed(rows, 3).subspace(1.0)
    assert subspace.rank == min(n, 30) or dtype == torch.bfloat16  # which may count the smallest one as noise
    left = rows.double() @ subspace.project(torch.eye(30, dtype=torch.float64)[None])
    assert float(left.norm() / rows.double().norm()) < 2 * torch.finfo(dtype).eps + 1e-12


def test_zero_vectors_span_nothing():
    subspace = streamed(torch.zeros(2, 7, 4), 2).subspace(1.0)
    assert subspace.ranks == [0, 0]
    assert subspace.null_dimension == 8


def test_no_vectors_span_nothing():
    streamed_rows = streamed(torch.zeros(2, 0, 4), 1)
    assert streamed_rows.subspace(1.0).ranks == [0, 0]
    assert streamed_rows.subspace(0.9).ranks == [0, 0]
    assert streamed_rows.merged(streamed(torch.ones(2, 3, 4), 1)).subspace(1.0).ranks == [1, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("n", [2, 20])
def test_vectors_that_are_not_finite_have_an_empty_null_space(bad, n):
    rows = torch.randn(1, n, 4)
    rows[0, 1, 2] = bad
    streamed_rows = streamed(rows, 2)
    assert not streamed_rows.finite
    subspace = streamed_rows.subspace(1.0)
    assert subspace.null_dimension == 0
    assert not subspace.project(torch.randn(1, 3, 4)).any()


def test_rank_of_double_precision_vectors_survives_streaming():
    """True rank 100 of 1000, singular values over ten decades: a Gram matrix finds about half (notes, fact 4)."""
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(1500, 100, generator=generator, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(1000, 100, generator=generator, dtype=torch.float64))[0]
    rows = (left * torch.logspace(0, -10, 100, dtype=torch.float64)) @ right.T
    assert streamed(rows[None], 2).subspace(1.0).rank == 100
    gram = torch.linalg.eigvalsh(rows.T @ rows)
    assert int((gram > gram[-1] * 1000 * torch.finfo(torch.float64).eps).sum()) < 90


def test_duplicate_vectors_by_the_samples_side():
    rows = torch.randn(1, 6, 40)
    twice = torch.cat([rows, rows], 1)
    subspace = streamed(twice, 1).subspace(1.0)
    assert subspace.rank == 6
    gram = subspace.basis.transpose(1, 2) @ subspace.basis
    torch.testing.assert_close(gram[0], torch.eye(6, dtype=torch.float64), atol=1e-12, rtol=0)


def test_directions_are_orthonormal_for_spread_singular_values():
    mixing = torch.linalg.qr(torch.randn(12, 12))[0]
    rows = mixing @ (torch.randn(1, 12, 40) * torch.logspace(0, -5, 12)[:, None])
    subspace = streamed(rows, 1).subspace(1 - 1e-14)
    gram = subspace.basis.transpose(1, 2) @ subspace.basis
    torch.testing.assert_close(gram[0], torch.eye(gram.shape[1], dtype=torch.float64), atol=1e-12, rtol=0)


def test_vectors_added_in_parts_and_products_in_blocks(monkeypatch):
    monkeypatch.setattr(representation, "BLOCK", 1)  # as many at a time as an input vector is long
    left, right = torch.randn(2, 700, 100), torch.randn(2, 100, 150)
    rows = left @ right
    streamed_rows = streamed(rows, 1, ones=True)
    assert streamed_rows.positions == 700
    expected = np.linalg.svd(dense(rows, ones=True), compute_uv=False) ** 2
    np.testing.assert_allclose(streamed_rows.spectrum().numpy(), expected, atol=1e-9 * expected.max())
    subspace = streamed_rows.subspace(1.0)
    assert subspace.ranks == [101, 101]
    kept = subspace.project(torch.eye(151, dtype=torch.float64).expand(2, -1, -1))
    for group, matrix in enumerate(dense(rows, ones=True)):
        np.testing.assert_allclose(kept[group].numpy(), null_projection(matrix, 1e-6), atol=1e-5)


def test_merging_does_not_change_the_parts():
    parts = [streamed(torch.randn(1, 9, 4), 2) for _ in range(2)]
    before = parts[0].spectrum()
    merged = parts[0].merged(parts[1])
    merged.update(torch.randn(1, 3, 4))
    assert torch.equal(parts[0].spectrum(), before)
    assert merged.positions == 21


def test_vectors_of_another_shape_raise():
    with pytest.raises(ValueError, match=r"\[2, positions, 3\]"):
        Representation(4, 2, torch.float32, ones=True).update(torch.zeros(2, 5, 4))


def test_the_coarser_precision_decides_after_a_merge():
    fine, coarse = Representation(3, 1, torch.float64, False), Representation(3, 1, torch.bfloat16, False)
    fine.update(torch.eye(3, dtype=torch.float64)[None, :1])
    coarse.update(torch.eye(3)[None, :1] + 1e-3)
    assert fine.merged(coarse).dtype == torch.bfloat16
    assert coarse.merged(fine).dtype == torch.bfloat16
    assert fine.merged(coarse).subspace(1.0).rank == 1  # the difference is below bf16's resolution


@pytest.mark.parametrize("spread", [0, 3, 5], ids=lambda spread: f"over 10^{spread}")
@pytest.mark.parametrize(("n", "dimension"), [(12, 40), (40, 40), (90, 40)])
def test_independent_vectors_need_no_eigenvectors(monkeypatch, n, dimension, spread):
    """The span is that of an SVD for badly conditioned vectors too, if their rank is unambiguous."""
    k = min(n, dimension)
    left, right = (torch.linalg.qr(torch.randn(size, k, dtype=torch.float64))[0] for size in (n, dimension))
    rows = ((left * torch.logspace(0, -spread, k, dtype=torch.float64)) @ right.T)[None].float()
    streamed_rows = streamed(rows, 2)
    expected = np.eye(dimension) - null_projection(rows[0].double().numpy(), 1e-7)
    monkeypatch.setattr(Representation, "_decompose", lambda self, *_: pytest.fail("it was decomposed"))
    subspace = streamed_rows.subspace(1.0)
    assert subspace.ranks == [k]
    seen = torch.eye(dimension, dtype=torch.float64) - subspace.project(torch.eye(dimension, dtype=torch.float64)[None])
    np.testing.assert_allclose(seen[0].numpy(), expected, atol=1e-9)
    if not subspace.complement:
        gram = subspace.basis.transpose(1, 2) @ subspace.basis
        torch.testing.assert_close(gram[0], torch.eye(k, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize("n", [12, 90])
def test_vectors_of_doubtful_rank_are_decomposed(n):
    """One direction only as large as rounding: the rank rule decides, not the success of a factorization."""
    rows = torch.randn(1, n, 40, dtype=torch.float64)
    left, values, right = torch.linalg.svd(rows, full_matrices=False)
    values[:, -1] = 3e-8 * values.norm()
    streamed_rows = streamed(((left * values[:, None]) @ right).float(), 1)
    calls = []
    decompose = streamed_rows._decompose
    streamed_rows._decompose = lambda *settings: calls.append(None) or decompose(*settings)
    assert streamed_rows.subspace(1.0).rank in (min(n, 40) - 1, min(n, 40))
    assert calls
