"""At the exact null space the squared gradient norm along a direction is a polynomial in the length."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teleport import NullSpace
from tests.teleport.networks import cross_entropy

LENGTHS = np.linspace(0, 1, 30)


class Block(nn.Module):
    """Attention, a layer norm and a GELU network with a residual connection."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embed, self.last = nn.Linear(5, width), nn.Linear(width, 7)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.embed(inputs)
        hidden = self.norm(hidden + self.attention(hidden, hidden, hidden, need_weights=False)[0])
        return self.last((hidden + self.narrow(F.gelu(self.widen(hidden))))[:, -1])


def chain(moving: int, activation: Callable[[], nn.Module] = nn.Tanh) -> Callable[[], nn.Module]:
    """``moving`` layers of width 48 above the first one, whose inputs are constant, so that it stays."""

    def make() -> nn.Module:
        widths = [12, *[48] * moving, 7]
        layers = [(nn.Linear(one, other), activation()) for one, other in itertools.pairwise(widths)]
        return nn.Sequential(*[module for pair in layers for module in pair][:-1])

    return make


def squares(make: Callable[[], nn.Module], shape: Sequence[int]) -> tuple[np.ndarray, int]:
    """The squared gradient norm at ``LENGTHS`` along a step, up to 5 to 10 times the norm; the weights that move."""
    torch.manual_seed(0)
    model = make().double()
    batch = torch.randn(*shape).double(), torch.arange(shape[0]) % 7
    start = [parameter.detach().clone() for parameter in model.parameters()]
    NullSpace(lr=1.0, steps=1, step="fixed", relative_cap=None, guard="none")(model, [batch], cross_entropy)
    direction = [parameter.detach() - before for parameter, before in zip(model.parameters(), start, strict=True)]

    def square(length: float) -> float:
        with torch.no_grad():
            for parameter, before, along in zip(model.parameters(), start, direction, strict=True):
                parameter.copy_(before + length * along)
        gradients = torch.autograd.grad(cross_entropy(model, batch), list(model.parameters()))
        return sum(float(gradient.square().sum()) for gradient in gradients)

    longest, before = 1.0, square(0.0)
    while square(longest) > 100 * before:
        longest /= 1.2
    while square(longest) < 25 * before:
        longest *= 1.2
    moved = sum(bool(along.any()) for along in direction if along.dim() > 1)
    return np.array([square(longest * length) for length in LENGTHS]), moved


def residual(values: np.ndarray, degree: int) -> float:
    """The largest distance from the least-squares polynomial, relative to the largest value."""
    fitted = np.polynomial.Chebyshev.fit(LENGTHS, values, degree)
    return float(np.abs(fitted(LENGTHS) - values).max() / values.max())


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("moving", [1, 2, 4])
def test_the_degree_is_twice_the_number_of_moving_layers(moving, activation):
    values, moved = squares(chain(moving, activation), (10, 12))
    assert moved == moving
    assert 25 <= values[-1] / values[0] <= 150
    assert residual(values, 2 * moving) < 1e-12
    assert residual(values, 2 * moving - 1) > 1e-9


def test_an_attention_block_is_near_a_polynomial_of_low_degree():
    values, moved = squares(Block, (3, 5, 5))
    assert moved >= 5
    assert 25 <= values[-1] / values[0] <= 150
    assert residual(values, 4) < 2e-3
    assert residual(values, 6) < 6e-6
    assert residual(values, 4) > 1e-9
