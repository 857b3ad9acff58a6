"""Norms of many elements, against double precision."""

from __future__ import annotations

import pytest
import torch

from teleport._spaces.norms import LONG, half_squared_norm, inner, joint_norm, norm_of


def of_values(name: str, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.full((count,), 0.1) if name == "constant" else torch.randn(count, generator=generator)


@pytest.mark.parametrize("name", ["constant", "normal"])
@pytest.mark.parametrize("count", [1, 1000, LONG, LONG + 1, 2**20, 2**24])
def test_norms_in_single_precision_are_those_in_double(name, count):
    values = of_values(name, count)
    exact = float(values.double().square().sum().sqrt())
    assert norm_of(values) == pytest.approx(exact, rel=1e-6 if count > LONG else 2e-5)
    assert norm_of(values.reshape(-1, 1).t()) == norm_of(values)
    assert float(inner([values], [values])) ** 0.5 == pytest.approx(exact, rel=1e-6)
    assert (2 * float(half_squared_norm([values]))) ** 0.5 == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
@pytest.mark.parametrize("count", [10, LONG + 10])
def test_squares_beyond_the_range_of_single_precision_do_not_show(scale, count):
    values = scale * of_values("normal", count)
    assert norm_of(values) == pytest.approx(float(values.double().square().sum().sqrt()), rel=1e-6)


def test_values_that_are_not_finite_do_show():
    assert norm_of(torch.tensor([1.0, float("inf")])) == float("inf")
    assert norm_of(torch.tensor([1.0, float("nan")])) != norm_of(torch.tensor([1.0, float("nan")]))


@pytest.mark.parametrize("scale", [1e-40, 1e-25, 1e-15, 1.0, 1e15, 1e25, 1e37])
def test_the_norm_of_several_tensors_is_that_of_all_their_elements(scale):
    parts = [scale * of_values("normal", count).view(-1, 2) for count in (10, 2000)]
    exact = sum(float(part.double().square().sum()) for part in parts) ** 0.5
    assert joint_norm(iter(parts)) == pytest.approx(exact, rel=1e-6)
    assert joint_norm([part.double() for part in parts]) == pytest.approx(exact, rel=1e-14)


def test_the_joint_norm_of_nothing_of_zeros_and_of_what_is_not_finite():
    assert joint_norm([]) == joint_norm([torch.zeros(3)]) == 0
    assert joint_norm([torch.ones(1), torch.tensor([1.0, float("inf")])]) == float("inf")
