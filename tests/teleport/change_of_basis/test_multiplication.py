"""The fused passes over parameters against the product with the whole factor."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from teleport._change_of_basis import multiplication
from teleport._change_of_basis.multiplication import Multiplications
from teleport._quiver.quiver import Freedom, Scaled

CLASSES = 9


def side(draw: st.DrawFn, shape: tuple[int, ...]) -> Tensor:
    """Classes of a shape that broadcasts to ``shape``: with fewer axes, or 1 long in some."""
    own = shape[draw(st.integers(0, len(shape))) :]
    own = tuple(size if draw(st.booleans()) else 1 for size in own)
    values = draw(st.lists(st.integers(0, CLASSES - 1), min_size=math.prod(own), max_size=math.prod(own)))
    return torch.tensor(values, dtype=torch.int64).reshape(own)


@st.composite
def parameters(draw: st.DrawFn) -> Scaled:
    """A parameter of up to four axes, contiguous or not, with any classes."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=0, max_size=4)))
    values = torch.randn(shape, dtype=torch.float64)
    if draw(st.booleans()) and len(shape) > 1:
        values = values.transpose(0, 1).contiguous().transpose(0, 1)
    return Scaled(nn.Parameter(values), side(draw, shape), side(draw, shape))


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.lists(parameters(), min_size=1, max_size=4), st.integers(0, 5))
def test_products_are_those_with_the_whole_factor(scaled, pinned):
    torch.manual_seed(0)
    freedom = torch.full((CLASSES,), int(Freedom.NONZERO))
    freedom[: pinned + 1] = Freedom.PINNED
    tau = torch.where(freedom == Freedom.PINNED, 1.0, 0.5 + torch.rand(CLASSES, dtype=torch.float64))
    named = {str(number): each for number, each in enumerate(scaled)}
    expected = {name: each.parameter.detach() * each.factors(tau) for name, each in named.items()}
    identities = [(id(each.parameter), each.parameter.data_ptr()) for each in scaled]
    made = Multiplications(named, freedom)
    moved = made.moved(tau)
    starts = {name: each.parameter.detach().clone() for name, each in named.items()}
    made.apply(tau, [each.parameter for each in scaled])
    for name, each in named.items():
        torch.testing.assert_close(each.parameter.detach(), expected[name], rtol=1e-14, atol=0)
        assert name in moved or torch.equal(each.parameter, starts[name])
    assert identities == [(id(each.parameter), each.parameter.data_ptr()) for each in scaled]


def convolution(out: int, into: int, size: int, dtype: torch.dtype = torch.float64) -> Scaled:
    """Rows by classes from 1 on, columns by those after."""
    rows = torch.arange(1, out + 1)[:, None, None, None]
    columns = torch.arange(out + 1, out + into + 1)[None, :, None, None]
    return Scaled(nn.Parameter(torch.randn(out, into, size, size).to(dtype)), rows, columns)


def apply(scaled: Scaled, tau: Tensor) -> None:
    freedom = torch.full((len(tau),), int(Freedom.NONZERO))
    freedom[0] = Freedom.PINNED
    Multiplications({"weight": scaled}, freedom).apply(tau, [scaled.parameter])


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "transposed"])
def test_a_parameter_of_many_chunks(layout, monkeypatch):
    monkeypatch.setattr(multiplication, "CHUNK", 500)
    scaled = convolution(21, 11, 3)
    if layout == "channels last":
        scaled.parameter.data = scaled.parameter.data.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":  # as a transposed convolution has it: what it makes along its second axis
        scaled = Scaled(scaled.parameter, scaled.input_class, scaled.output_class)
    tau = 0.5 + torch.rand(33, dtype=torch.float64)
    expected = scaled.parameter.detach() * scaled.factors(tau)
    apply(scaled, tau)
    torch.testing.assert_close(scaled.parameter.detach(), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_error_is_that_of_two_roundings(dtype):
    scaled = convolution(8, 40, 3, dtype)
    tau = 0.5 + torch.rand(49, dtype=torch.float64)
    tau[0] = 1
    expected = scaled.parameter.detach().double() * scaled.factors(tau)
    apply(scaled, tau)
    assert scaled.parameter.dtype == dtype
    error = ((scaled.parameter.detach().double() - expected) / expected).abs().max()
    assert float(error) < 3 * torch.finfo(dtype).eps
