"""Spans of vectors of deficient rank and of bad condition against singular value decompositions in more digits."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch

from teleport._spaces.gram import orthonormal, products
from teleport._spaces.representation import FEW, Representation
from teleport._spaces.sample_side import decomposed, extended
from teleport._spaces.subspace import rank

EPS = torch.finfo(torch.float64).eps


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_values(values, dimension, seed=0):
    """Vectors ``[n, dimension]`` of these singular values."""
    sides = (torch.linalg.qr(noise(size, len(values), seed=seed + size))[0] for size in (len(values), dimension))
    left, right = sides
    return left * torch.as_tensor(values, dtype=torch.float64) @ right.T


def decades(count, most):
    return torch.logspace(0, -most, count, dtype=torch.float64)


def near_threshold(count):
    """Half of the singular values are 1, half exceed the effect of rounding in single precision by 8 % to 30 %."""
    least = torch.finfo(torch.float32).eps * (count // 2) ** 0.5
    return torch.cat([torch.ones(count - count // 2), least * torch.linspace(1.3, 1.08, count // 2)])


KINDS = {
    "independent": lambda n, d: noise(n, d),
    "half of full rank": lambda n, d: noise(n, n // 2) @ noise(n // 2, d, seed=1),
    "nine tenths of full rank": lambda n, d: noise(n, 9 * n // 10) @ noise(9 * n // 10, d, seed=1),
    "one short of full rank": lambda n, d: noise(n, n - 1) @ noise(n - 1, d, seed=1),
    "rank 1": lambda n, d: noise(n, 1) @ noise(1, d, seed=1),
    "each vector three times": lambda n, d: noise(-(-n // 3), d).repeat(3, 1)[:n],
    "zeros among them": lambda n, d: noise(n, d) * (torch.arange(n) % 2)[:, None],
    "over 4 decades": lambda n, d: with_values(decades(n, 4), d),
    "over 9 decades": lambda n, d: with_values(decades(n, 9), d),
    "two plateaus": lambda n, d: with_values([1.0] * (n // 2) + [1e-5] * (n - n // 2), d),
    "about the threshold": lambda n, d: with_values(near_threshold(n), d),
    "vectors of 30 magnitudes": lambda n, d: noise(n, d) * 1e15 * decades(n, 30)[:, None],
    "elements of 30 magnitudes": lambda n, d: noise(n, d) * 1e15 * decades(d, 30),
    "around a large mean": lambda n, d: 1e3 + 1e-3 * noise(n, d).clamp_min(0),
    "tiny": lambda n, d: 1e-25 * (noise(n, n // 2) @ noise(n // 2, d, seed=1)),
    "huge": lambda n, d: 1e25 * (noise(n, n // 2) @ noise(n // 2, d, seed=1)),
}


@pytest.mark.parametrize("shape", [(60, 60), (60, 61), (75, 200)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_and_spans_are_those_of_the_singular_value_decomposition(kind, shape):
    """At every threshold, up to the error that the gap behind the last direction allows a backward stable method."""
    assert min(shape) > FEW
    for dtype in (torch.float32, torch.bfloat16):
        rows = KINDS[kind](*shape).to(dtype)
        representation = Representation(shape[1], 1, dtype, ones=False)
        representation.update(rows[None])
        left, values, _ = torch.linalg.svd(rows.double().T, full_matrices=False)
        for threshold in (1.0, 1 - 1e-9, 0.999, 0.9):
            found = representation.subspace(threshold)
            k = rank(values.square(), threshold, (shape[1], shape[0]), dtype)
            assert found.rank == k
            gap = float(values[k - 1] - (values[k] if k < len(values) else 0.0))
            sine = torch.linalg.matrix_norm(found.project(left[:, :k].T[None].contiguous()), 2)
            assert float(sine) <= 100 * EPS * float(values[0]) / gap
            basis = found.basis[0]
            identity = torch.eye(basis.shape[1], dtype=torch.float64)
            torch.testing.assert_close(basis.T @ basis, identity, atol=1e-12, rtol=0)


@pytest.mark.parametrize("most", [3, 8, 14])
def test_values_and_spans_against_forty_digits(most):
    rows = with_values(decades(12, most), 16)
    found, energies = decomposed(rows, products(rows[None])[0], 0.0)
    with mpmath.workdps(40):
        _, values, right = mpmath.svd_r(mpmath.matrix(rows.tolist()), full_matrices=False)
        expected = np.array([float(value) for value in values])
        exact = np.array([[float(right[i, j]) for j in range(16)] for i in range(12)])
    np.testing.assert_allclose(energies.sqrt().numpy(), expected, rtol=0, atol=1e-12)
    assert float(energies[0]) == pytest.approx(expected[0] ** 2, rel=1e-14)
    assert len(found) >= int((expected > 1e-12).sum())
    torch.testing.assert_close(found @ found.T, torch.eye(len(found)).double(), atol=1e-14, rtol=0)
    for k in range(1, len(found)):
        basis = found[:k].numpy()
        sine = np.linalg.norm(exact[:k] - exact[:k] @ basis.T @ basis, 2)
        assert sine <= 100 * EPS / (expected[k - 1] - expected[k])


def test_directions_of_negligible_energy_may_be_left_out_and_no_others():
    rows = with_values(decades(20, 10), 30)
    for least in (1e-1, 1e-5, 1e-9):
        found, energies = decomposed(rows, products(rows[None])[0], least**2)
        assert len(energies) == 20
        assert int((decades(20, 10) > least).sum()) <= len(found)
    assert len(decomposed(rows, products(rows[None])[0], 1e-2)[0]) < 20
    assert len(decomposed(torch.zeros(5, 9).double(), torch.zeros(5, 5).double(), 0.0)[0]) == 0


def test_groups_of_different_ranks():
    ranks = [60, 30, 1, 0]
    rows = torch.stack([noise(60, max(1, r), seed=r) @ noise(max(1, r), 70, seed=r + 1) * (r > 0) for r in ranks])
    representation = Representation(70, 4, torch.float32, ones=False)
    representation.update(rows.float())
    found = representation.subspace(1.0)
    assert found.ranks == ranks
    for group, r in enumerate(ranks):
        reference = np.linalg.svd(rows[group].float().double().numpy())[2][:r]
        basis = found.basis[group].numpy()
        np.testing.assert_allclose(basis @ basis.T, reference.T @ reference, atol=1e-9)


@pytest.mark.parametrize("r", [20, 50, 63])
def test_as_many_vectors_as_dimensions_have_a_complement(r):
    representation = Representation(64, 1, torch.float32, ones=False)
    rows = (noise(64, r) @ noise(r, 64, seed=1)).float()
    representation.update(rows[None])
    found = representation.subspace(1.0)
    assert found.ranks == [r]
    assert found.complement == (r > 32)
    assert found.basis.shape[2] == (64 - r if found.complement else r)
    kept = found.project(torch.eye(64, dtype=torch.float64)[None])[0]
    assert float(kept.trace()) == pytest.approx(64 - r)
    assert float((rows.double() @ kept).norm() / rows.double().norm()) < torch.finfo(torch.float32).eps


def test_no_squared_value_is_negative():
    for rows in (noise(70, 20).repeat(1, 4), noise(35, 80).repeat(2, 1), torch.zeros(70, 80)):
        representation = Representation(80, 1, torch.float32, ones=False)
        representation.update(rows[None].float())
        assert float(representation.spectrum().min()) >= 0


def test_directions_of_later_passes_are_orthogonal_to_the_first():
    rows = with_values(decades(80, 9), 120)
    found, _ = decomposed(rows, products(rows[None])[0], 1e-18)
    assert len(found) > 75
    torch.testing.assert_close(found @ found.T, torch.eye(len(found)).double(), atol=3e-15, rtol=0)


def test_the_spectrum_of_deficient_vectors():
    rows = (noise(80, 30) @ noise(30, 100, seed=1)).float()
    representation = Representation(100, 1, torch.float32, ones=False)
    representation.update(rows[None])
    expected = np.linalg.svd(rows.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(
        representation.spectrum()[0].sqrt().numpy(), expected, rtol=1e-10, atol=1e-13 * expected[0]
    )


@pytest.mark.parametrize("count", [0, 1, 7, 11])
def test_an_extended_basis_is_orthonormal_and_begins_with_what_was_given(count):
    given = torch.linalg.qr(noise(12, 12))[0][:count]
    whole = extended(given)
    assert torch.equal(whole[:count], given)
    torch.testing.assert_close(whole @ whole.T, torch.eye(12, dtype=torch.float64), atol=1e-14, rtol=0)


@pytest.mark.parametrize("most", [0, 2, 5])
def test_columns_of_independent_vectors_are_orthonormal_to_rounding(most):
    rows = with_values(decades(60, most), 100)[None].contiguous()
    columns = orthonormal(rows, products(rows), torch.float32)
    identity = torch.eye(60, dtype=torch.float64)[None]
    exact = 1e-14 if most == 5 else 1e-3 * torch.finfo(torch.float32).eps  # one factorization is enough for the others
    torch.testing.assert_close(columns.mT @ columns, identity, atol=exact, rtol=0)
    left = rows.mT - columns @ (columns.mT @ rows.mT)
    assert float(left.norm()) < 1e-14 * float(rows.norm())


def test_dependent_vectors_have_no_columns():
    for rows in (noise(60, 30) @ noise(30, 100), with_values(decades(60, 7), 100), torch.zeros(60, 100).double()):
        assert orthonormal(rows[None], products(rows[None]), torch.float32) is None
