"""Second derivatives of networks with weight_norm: beside the same network normalised by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from teleport import LevelSet, orbit_report

WRAPPED = {
    "weight_norm": (parametrizations.weight_norm, 1),
    "older weight_norm": (lambda layer: _without_warning(nn.utils.weight_norm, layer), 1),
    "weight_norm, dim=1": (partial(parametrizations.weight_norm, dim=1), 0),
    "weight_norm, dim=None": (partial(parametrizations.weight_norm, dim=None), (0, 1)),
}
"""How a layer is normalised by torch, and the axes of its norms."""


class ByHand(nn.Module):
    """``g v / |v|``, of norms over ``axes``, by operations whose second derivatives are right."""

    def __init__(self, axes: int | tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return g * v / v.square().sum(self.axes, keepdim=True).sqrt()

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return weight.square().sum(self.axes, keepdim=True).sqrt(), weight


def by_hand(axes: int | tuple[int, ...]) -> Callable[[nn.Module], nn.Module]:
    def wrap(layer: nn.Module) -> nn.Module:
        return parametrize.register_parametrization(layer, "weight", ByHand(axes))

    return wrap


def _without_warning(wrap: Callable[[nn.Module], nn.Module], layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that it is deprecated
        return wrap(layer)


def network(wrap: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    """Two layers, of the same values whatever wraps them; directions are not of the length of magnitudes."""
    torch.manual_seed(0)
    first, last = nn.Linear(5, 4).double(), nn.Linear(4, 2).double()
    made = nn.Sequential(wrap(first), nn.Tanh(), wrap(last))
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in sorted(made.parameters(), key=lambda each: (each.numel(), each.dim())):
            parameter.mul_(1 + 0.3 * torch.rand((), generator=draws, dtype=torch.float64))
    return made


def batch() -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(2)
    inputs = torch.randn(16, 5, generator=draws, dtype=torch.float64)
    return inputs, torch.randn(16, 2, generator=draws, dtype=torch.float64)


def loss_fn(model: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.mse_loss(model(data[0]), data[1])


def values(model: nn.Module) -> list[Tensor]:
    return sorted((each.detach().flatten() for each in model.parameters()), key=lambda each: float(each.norm()))


@pytest.mark.parametrize(("wrap", "axes"), WRAPPED.values(), ids=WRAPPED)
def test_a_level_set_step_is_that_of_the_network_normalised_by_hand(wrap, axes):
    moved, expected = network(wrap), network(by_hand(axes))
    assert all(torch.equal(one, two) for one, two in zip(values(moved), values(expected), strict=True))
    for model in (moved, expected):
        report = LevelSet(steps=2, lr=0.05)(model, [batch()], loss_fn)
        assert report.steps == 2
    for one, two in zip(values(moved), values(expected), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("wrap", "axes"), WRAPPED.values(), ids=WRAPPED)
def test_sharpness_is_that_of_the_network_normalised_by_hand(wrap, axes):
    found = [
        {each.name: each.value for each in orbit_report(model, batch(), loss_fn).measures}
        for model in (network(wrap), network(by_hand(axes)))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-6)
