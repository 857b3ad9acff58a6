"""A product projected in each order against the projection of the product."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from teleport._frozen_forward.projected_products import Projection, projected_product
from teleport._spaces.subspace import Subspace
from teleport._tracing.layers import Block, Layer

ORDERS = {  # positions, out, inputs, columns of the basis, whether it is the complement's
    "whole": (40, 6, 12, 5, False),
    "rows": (3, 30, 12, 5, False),
    "whole, of the complement": (40, 6, 12, 6, True),
    "rows, of the complement": (3, 30, 12, 6, True),
    "coordinates": (25, 30, 12, 1, True),
}


def projection_of(order: str, bias: bool, survived: bool = True) -> tuple[Projection, Subspace, Tensor, Tensor]:
    """A projection whose least work is done in ``order``, its subspace, and the factors of a product."""
    torch.manual_seed(3)
    positions, out, inputs, columns, complement = ORDERS[order]
    dimension = inputs + bias
    basis = torch.linalg.qr(torch.randn(dimension, columns, dtype=torch.float64))[0][None]
    subspace = Subspace([dimension - columns if complement else columns], dimension, basis, complement)
    weight = torch.nn.Parameter(torch.randn(out, inputs))
    shift = Block.of(torch.nn.Parameter(torch.randn(out)), "bias", weight) if bias else None
    layer = Layer("layer", "linear", Block.of(weight, "weight", weight), shift, 1, False, dimension)
    left, right = torch.randn(positions, out).double(), torch.randn(positions, inputs).double()
    return Projection(layer, subspace, lambda whole, kept: survived), subspace, left, right


@pytest.mark.parametrize("bias", [True, False], ids=["with bias", "without"])
@pytest.mark.parametrize("order", ORDERS)
def test_each_order_projects_the_product(order, bias):
    projection, subspace, left, right = projection_of(order, bias)
    assert projection._least_work(len(left), left.shape[1], right.shape[1]) == order.split(",")[0]
    product = torch.cat([left.T @ right, torch.zeros(left.shape[1], bias, dtype=torch.float64)], dim=1)
    spanned = product @ subspace.basis[0] @ subspace.basis[0].T
    expected = spanned if subspace.complement else product - spanned
    found, shift = projection.of_product(left, right)
    assert shift.shape == (left.shape[1], bias)
    torch.testing.assert_close(torch.cat([found, shift], dim=1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_direction_below_rounding_error_is_zero(order):
    projection, _, left, right = projection_of(order, bias=True, survived=False)
    found, shift = projection.of_product(left, right)
    assert (found.shape, shift.shape) == ((left.shape[1], right.shape[1]), (left.shape[1], 1))
    assert not found.any()
    assert not shift.any()


@pytest.mark.parametrize("order", ORDERS)
def test_compared_norms_belong_to_one_tensor_before_and_after_projection(order):
    seen = []
    projection, subspace, left, right = projection_of(order, bias=False)
    projection._survived = lambda whole, kept: seen.append((whole, kept)) or True
    projection.of_product(left, right)
    ((whole, kept),) = seen
    assert any(whole is tensor or whole.equal(tensor) for tensor in (right, left.T @ right))
    assert float(kept.norm()) == pytest.approx(float(subspace.project(whole[None]).norm()), rel=1e-12)


def test_product_and_its_derivative_for_the_other_factor():
    projection, _, left, _ = projection_of("whole", bias=False)
    matrix = torch.randn(6, 12, dtype=torch.float64, requires_grad=True)
    left.requires_grad_()
    product = projected_product(left, matrix, None, projection)
    torch.testing.assert_close(product, left @ matrix)
    weights = torch.randn_like(product)
    (found,) = torch.autograd.grad((product * weights).sum(), [left])
    torch.testing.assert_close(found, weights @ matrix.T)


@pytest.mark.parametrize("order", ORDERS)
def test_projection_comes_last_under_reduced_precision(order):
    projection, subspace, left, right = projection_of(order, bias=False)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = projection.of_product(left.float(), right.float())
    assert torch.equal(found, subspace.project((left.float().T.bfloat16() @ right.bfloat16())[None])[0])
