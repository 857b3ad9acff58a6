"""The rank rule against equation 3 by brute force, and the projection in both bases."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teleport._spaces.subspace import rank, subspace_of

FEW = settings(derandomize=True, max_examples=25, deadline=None)


@FEW
@given(st.lists(st.just(0.0) | st.floats(1e-3, 10), min_size=1, max_size=8), st.floats(0.05, 0.999))
def test_rank_is_the_smallest_k_of_equation_3(singular, threshold):
    values = np.sort(np.array(singular))[::-1]
    if values[0] == 0:
        expected = 0
    else:
        whole = (values**2).sum()
        expected = next(
            k for k in range(1, len(values) + 1) if (values[:k] ** 2).sum() >= threshold * whole * (1 - 1e-12)
        )
        loose = next(k for k in range(1, len(values) + 1) if (values[:k] ** 2).sum() >= threshold * whole * (1 + 1e-12))
        if loose != expected:  # on the edge, rounding decides
            return
    energies = torch.from_numpy(values.copy()).square()
    assert rank(energies, threshold, (len(values), 10), torch.float64) == expected


def test_numerical_rank_counts_directions_above_rounding_error():
    for dtype in (torch.float32, torch.float64):
        eps = torch.finfo(dtype).eps
        energies = torch.tensor([1.0, 100 * eps, 0.1 * eps], dtype=torch.float64).square()
        assert rank(energies, 1.0, (3, 3), dtype) == 2
    assert rank(torch.zeros(3, dtype=torch.float64), 1.0, (3, 3), torch.float32) == 0
    assert rank(torch.zeros(0, dtype=torch.float64), 0.5, (3, 0), torch.float32) == 0


@FEW
@given(st.integers(2, 9), st.integers(1, 3), st.data())
def test_spanned_basis_and_complement_project_alike(dimension, groups, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    directions = torch.linalg.qr(torch.randn(groups, dimension, dimension, generator=generator).double())[0]
    ranks = [data.draw(st.integers(0, dimension)) for _ in range(groups)]
    energies = torch.zeros(groups, dimension, dtype=torch.float64)
    for group, count in enumerate(ranks):
        energies[group, :count] = torch.linspace(3, 1, count, dtype=torch.float64)
    matrix = torch.randn(groups, 2, dimension, generator=generator).double()
    chosen = subspace_of(directions, energies, 1.0, 50, torch.float64)
    assert chosen.ranks == ranks
    assert chosen.null_dimension == dimension * groups - sum(ranks)
    assert chosen.complement == (2 * sum(ranks) > dimension * groups)
    for group, count in enumerate(ranks):
        spanned = directions[group, :, :count]
        expected = matrix[group] - matrix[group] @ spanned @ spanned.T
        torch.testing.assert_close(chosen.project(matrix)[group], expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(chosen.project(chosen.project(matrix)), chosen.project(matrix), atol=1e-12, rtol=0)


def test_small_projection_is_in_the_null_space():
    """A single-precision gradient almost in the span: a projection in single precision would be mostly rounding."""
    basis = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64))[0]
    energies = torch.cat([torch.ones(20), torch.zeros(20)]).double()[None]
    subspace = subspace_of(basis[None], energies, 1.0, 100, torch.float32)
    matrix = (torch.randn(3, 20).double() @ basis[:, :20].T + 1e-5 * torch.randn(3, 20).double() @ basis[:, 20:].T)[
        None
    ]
    kept = subspace.project(matrix.float())
    assert kept.dtype == torch.float32
    assert float((kept.double() @ basis[:, :20]).norm()) < 1e-6 * float(kept.norm())


def test_single_precision_rounding_errors_are_elementwise():
    """Sums over rows in single precision would have one error for all inputs along a direction of the basis."""
    directions = torch.linalg.qr(torch.randn(400, 400, dtype=torch.float64))[0][None]
    energies = torch.cat([torch.ones(150), torch.zeros(250)]).double()[None]
    subspace = subspace_of(directions, energies, 1.0, 1000, torch.float32)
    matrix, spanned = torch.randn(1, 100, 400), directions[..., :150]
    kept = subspace.project(matrix)
    exact = matrix.double() - matrix.double() @ spanned @ spanned.transpose(1, 2)
    torch.testing.assert_close(kept.double(), exact, rtol=0, atol=2e-6)
    leak = float((kept.double() @ spanned).norm())
    assert leak < 2 * torch.finfo(torch.float32).eps * float(exact.norm())
    single = matrix - (matrix @ spanned.float()) @ spanned.float().transpose(1, 2)
    assert float((single.double() @ spanned).norm()) > 1.5 * leak


def test_half_precision_is_projected_in_single():
    directions = torch.linalg.qr(torch.randn(30, 30, dtype=torch.float64))[0][None]
    energies = torch.cat([torch.ones(10), torch.zeros(20)]).double()[None]
    subspace = subspace_of(directions, energies, 1.0, 1000, torch.float32)
    matrix = torch.randn(1, 7, 30).bfloat16()
    kept = subspace.project(matrix)
    assert kept.dtype == torch.bfloat16
    torch.testing.assert_close(kept, subspace.project(matrix.double()).bfloat16(), rtol=1e-2, atol=1e-3)


@contextmanager
def reduced_products():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("reduce", [lambda: torch.autocast("cpu", torch.bfloat16), reduced_products])
@pytest.mark.parametrize("rank_of_inputs", [10, 30], ids=["spanned", "complement"])
def test_projection_is_exact_under_reduced_precision(reduce, rank_of_inputs):
    directions = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64))[0][None]
    energies = (torch.arange(40) < rank_of_inputs).double()[None]
    subspace = subspace_of(directions, energies, 1.0, 1000, torch.float32)
    matrix, spanned = torch.randn(1, 20, 40), directions[..., :rank_of_inputs]
    with reduce():
        kept = subspace.project(matrix)
    assert float((kept.double() @ spanned).norm()) < 1e-6 * float(matrix.norm())
