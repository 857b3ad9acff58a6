"""The closed form against finite differences and scipy's minimiser."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize
from torch import Tensor, nn

from teleport._rescaling.factor_variables import FactorVariables, find_factor_variables
from teleport._rescaling.gradient_norm import SquaredGradientNormOfFactors
from tests.teleport.joined_networks import NETWORKS
from tests.teleport.networks import CLASSES, cross_entropy
from tests.teleport.rescalable import cnns, flat_batch, mlps


def closed_form(
    model: nn.Module, batch: tuple[Tensor, Tensor], at: Tensor | None = None
) -> SquaredGradientNormOfFactors:
    """Of a model that stands at the variables ``at``, zero unless said."""
    parameters = list(model.parameters())
    channels = find_factor_variables(lambda batch: cross_entropy(model, batch), [batch], dict(model.named_parameters()))
    gradients = torch.autograd.grad(
        cross_entropy(model, batch), parameters, allow_unused=True, materialize_grads=True
    )  # fmt: skip
    squares = {parameter: gradient.square() for parameter, gradient in zip(parameters, gradients, strict=True)}
    return SquaredGradientNormOfFactors(channels, squares, zeros(channels) if at is None else at)


def zeros(channels: FactorVariables) -> Tensor:
    return torch.zeros(channels.variables, dtype=torch.float64)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.one_of(mlps(), cnns()), st.integers(0, 2**16))
def test_the_norm_elsewhere_is_that_of_a_backward_pass_there(made, seed):
    """Also from a start that is not the origin."""
    model, batch = made
    norm = closed_form(model, batch)
    x = torch.randn(norm.channels.variables, generator=torch.Generator().manual_seed(seed)).double()
    with torch.no_grad():
        for scaled in norm.channels.scaled.values():
            scaled.parameter.mul_(scaled.factors(norm.channels.log_tau(x).exp()))
    there = closed_form(model, batch, at=x)
    gradients = torch.autograd.grad(cross_entropy(model, batch), list(model.parameters()), allow_unused=True)
    measured = sum(float(gradient.square().sum()) for gradient in gradients if gradient is not None)
    assert norm.at(x) == pytest.approx(measured, rel=1e-10)
    assert there.at(x) == pytest.approx(measured, rel=1e-10)
    origin = torch.zeros_like(x)
    assert there.at(origin) == pytest.approx(norm.at(origin), rel=1e-9)


@pytest.mark.parametrize(
    "name", ["convolutions", "inception, pool branch first", "residual", "functional", "gated", "shuffled", "padded"]
)
def test_the_norm_elsewhere_where_channels_are_joined(name):
    """Groups, transposed weights, classes of several layers, factors element by element."""
    model, (inputs,) = NETWORKS[name].make()
    batch = inputs, torch.arange(len(inputs)) % CLASSES
    norm = closed_form(model, batch)
    x = torch.linspace(-1, 1, norm.channels.variables).double()
    with torch.no_grad():
        for scaled in norm.channels.scaled.values():
            scaled.parameter.mul_(scaled.factors(norm.channels.log_tau(x).exp()))
    gradients = torch.autograd.grad(cross_entropy(model, batch), list(model.parameters()), allow_unused=True)
    measured = sum(float(gradient.square().sum()) for gradient in gradients if gradient is not None)
    assert norm.at(x) == pytest.approx(measured, rel=1e-10)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.one_of(mlps(), cnns()), st.integers(0, 2**16))
def test_the_pull_is_the_gradient(made, seed):
    norm = closed_form(*made)
    x = torch.randn(norm.channels.variables, generator=torch.Generator().manual_seed(seed)).double() / 2
    numeric = approx_fprime(x.numpy(), lambda at: norm.at(torch.from_numpy(at)) / 2, 1e-7)
    np.testing.assert_allclose(norm.gradient(x).numpy(), numeric, rtol=1e-4, atol=1e-6 * norm.at(x))


def deep() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    layers = [nn.Linear(5, 6), nn.LeakyReLU(), nn.Linear(6, 7), nn.LeakyReLU(), nn.Linear(7, 6), nn.LeakyReLU()]
    return nn.Sequential(*layers, nn.Linear(6, CLASSES)).double(), flat_batch()


def test_the_balance_is_the_minimum():
    norm = closed_form(*deep())
    way = norm.balance(zeros(norm.channels), sweeps=1000, bound=50.0)
    assert way.stopped == "minimum reached"
    assert float(norm.gradient(way.x).abs().max()) < 1e-8 * norm.at(way.x)
    found = minimize(
        lambda x: norm.at(torch.from_numpy(x)),
        np.zeros(norm.channels.variables),
        jac=lambda x: 2 * norm.gradient(torch.from_numpy(x)).numpy(),
        method="BFGS",
        options={"gtol": 1e-10},
    )
    assert norm.at(way.x) == pytest.approx(found.fun, rel=1e-8)
    np.testing.assert_allclose(way.x.numpy(), found.x, atol=2e-3)  # flat there
    assert all(later <= earlier for earlier, later in zip(way.squared_norms, way.squared_norms[1:], strict=False))
    again = norm.balance(way.x, sweeps=1000, bound=50.0)
    torch.testing.assert_close(again.x, way.x, rtol=0, atol=1e-9)


def test_the_balance_within_a_bound_is_the_least_there():
    norm, bound = closed_form(*deep()), 0.3
    way = norm.balance(zeros(norm.channels), sweeps=1000, bound=bound)
    assert float(way.x.abs().max()) == bound
    found = minimize(
        lambda x: norm.at(torch.from_numpy(x)),
        np.zeros(norm.channels.variables),
        jac=lambda x: 2 * norm.gradient(torch.from_numpy(x)).numpy(),
        method="L-BFGS-B",
        bounds=[(-bound, bound)] * norm.channels.variables,
        options={"ftol": 1e-15, "gtol": 1e-12},
    )
    assert norm.at(way.x) == pytest.approx(found.fun, rel=1e-9)


def test_the_balance_gives_up_after_its_sweeps():
    norm = closed_form(*deep())
    way = norm.balance(zeros(norm.channels), sweeps=1, bound=50.0)
    assert (way.stopped, way.steps) == ("steps done", 1)


def test_the_climb_stops_short_of_what_cannot_be_computed():
    norm = closed_form(*deep())
    way = norm.ascend(zeros(norm.channels), lr=1e3, steps=5, cap=math.inf, rule="fixed", bound=1e4)
    assert math.isfinite(way.squared_norms[-1])
    assert way.squared_norms[-1] > 1e100


@settings(deadline=None, max_examples=30, derandomize=True)
@given(mlps(), st.floats(1.001, 5.0), st.floats(0.01, 3.0))
def test_the_climb_is_monotone_within_cap_and_bound(made, factor, lr):
    norm = closed_form(*made)
    start = zeros(norm.channels)
    cap = factor * math.sqrt(norm.at(start))
    way = norm.ascend(start, lr=lr, steps=20, cap=cap, rule="cap", bound=1.5)
    assert all(later > earlier for earlier, later in zip(way.squared_norms, way.squared_norms[1:], strict=False))
    assert way.squared_norms[-1] <= cap**2 * (1 + 1e-12)
    assert norm.at(way.x) == way.squared_norms[-1]
    assert float(way.x.abs().amax()) <= 1.5
    if way.stopped == "cap reached":
        assert way.squared_norms[-1] >= (0.98 * cap) ** 2
