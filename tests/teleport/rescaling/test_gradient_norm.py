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
    """The closed form of a model whose parameters are scaled by the factors at ``at`` (default: zeros)."""
    parameters = list(model.parameters())
    variables = find_factor_variables(
        lambda batch: cross_entropy(model, batch), [batch], dict(model.named_parameters())
    )
    gradients = torch.autograd.grad(
        cross_entropy(model, batch), parameters, allow_unused=True, materialize_grads=True
    )  # fmt: skip
    squares = {parameter: gradient.square() for parameter, gradient in zip(parameters, gradients, strict=True)}
    return SquaredGradientNormOfFactors(variables, squares, zeros(variables) if at is None else at)


def zeros(variables: FactorVariables) -> Tensor:
    return torch.zeros(variables.count, dtype=torch.float64)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.one_of(mlps(), cnns()), st.integers(0, 2**16))
def test_the_closed_form_matches_a_backward_pass_at_other_factors(made, seed):
    """Also with an origin other than zero."""
    model, batch = made
    norm = closed_form(model, batch)
    x = torch.randn(norm.factor_variables.count, generator=torch.Generator().manual_seed(seed)).double()
    with torch.no_grad():
        for scaled in norm.factor_variables.scaled.values():
            scaled.parameter.mul_(scaled.factors(norm.factor_variables.log_tau(x).exp()))
    rescaled = closed_form(model, batch, at=x)
    gradients = torch.autograd.grad(cross_entropy(model, batch), list(model.parameters()), allow_unused=True)
    measured = sum(float(gradient.square().sum()) for gradient in gradients if gradient is not None)
    assert norm.at(x) == pytest.approx(measured, rel=1e-10)
    assert rescaled.at(x) == pytest.approx(measured, rel=1e-10)
    origin = torch.zeros_like(x)
    assert rescaled.at(origin) == pytest.approx(norm.at(origin), rel=1e-9)


@pytest.mark.parametrize(
    "name", ["convolutions", "inception, pool branch first", "residual", "functional", "gated", "shuffled", "padded"]
)
def test_the_closed_form_matches_a_backward_pass_of_networks_with_joined_channels(name):
    """Groups, transposed weights, classes of several layers, factors element by element."""
    model, (inputs,) = NETWORKS[name].make()
    batch = inputs, torch.arange(len(inputs)) % CLASSES
    norm = closed_form(model, batch)
    x = torch.linspace(-1, 1, norm.factor_variables.count).double()
    with torch.no_grad():
        for scaled in norm.factor_variables.scaled.values():
            scaled.parameter.mul_(scaled.factors(norm.factor_variables.log_tau(x).exp()))
    gradients = torch.autograd.grad(cross_entropy(model, batch), list(model.parameters()), allow_unused=True)
    measured = sum(float(gradient.square().sum()) for gradient in gradients if gradient is not None)
    assert norm.at(x) == pytest.approx(measured, rel=1e-10)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.one_of(mlps(), cnns()), st.integers(0, 2**16))
def test_the_gradient_matches_finite_differences(made, seed):
    norm = closed_form(*made)
    x = torch.randn(norm.factor_variables.count, generator=torch.Generator().manual_seed(seed)).double() / 2
    numeric = approx_fprime(x.numpy(), lambda at: norm.at(torch.from_numpy(at)) / 2, 1e-7)
    np.testing.assert_allclose(norm.gradient(x).numpy(), numeric, rtol=1e-4, atol=1e-6 * norm.at(x))


def deep() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    layers = [nn.Linear(5, 6), nn.LeakyReLU(), nn.Linear(6, 7), nn.LeakyReLU(), nn.Linear(7, 6), nn.LeakyReLU()]
    return nn.Sequential(*layers, nn.Linear(6, CLASSES)).double(), flat_batch()


def test_balancing_finds_the_minimum_of_scipy():
    norm = closed_form(*deep())
    trajectory = norm.balance(zeros(norm.factor_variables), sweeps=1000, bound=50.0)
    assert trajectory.stopped == "minimum reached"
    assert float(norm.gradient(trajectory.x).abs().max()) < 1e-8 * norm.at(trajectory.x)
    found = minimize(
        lambda x: norm.at(torch.from_numpy(x)),
        np.zeros(norm.factor_variables.count),
        jac=lambda x: 2 * norm.gradient(torch.from_numpy(x)).numpy(),
        method="BFGS",
        options={"gtol": 1e-10},
    )
    assert norm.at(trajectory.x) == pytest.approx(found.fun, rel=1e-8)
    np.testing.assert_allclose(trajectory.x.numpy(), found.x, atol=2e-3)  # the minimum is flat
    assert all(
        later <= earlier for earlier, later in zip(trajectory.squared_norms, trajectory.squared_norms[1:], strict=False)
    )
    again = norm.balance(trajectory.x, sweeps=1000, bound=50.0)
    torch.testing.assert_close(again.x, trajectory.x, rtol=0, atol=1e-9)


def test_balancing_within_a_bound_finds_the_bounded_minimum_of_scipy():
    norm, bound = closed_form(*deep()), 0.3
    trajectory = norm.balance(zeros(norm.factor_variables), sweeps=1000, bound=bound)
    assert float(trajectory.x.abs().max()) == bound
    found = minimize(
        lambda x: norm.at(torch.from_numpy(x)),
        np.zeros(norm.factor_variables.count),
        jac=lambda x: 2 * norm.gradient(torch.from_numpy(x)).numpy(),
        method="L-BFGS-B",
        bounds=[(-bound, bound)] * norm.factor_variables.count,
        options={"ftol": 1e-15, "gtol": 1e-12},
    )
    assert norm.at(trajectory.x) == pytest.approx(found.fun, rel=1e-9)


def test_balancing_takes_a_channel_without_a_gradient_on_one_side_to_the_bound():
    """The term ``a exp(-2x) + b exp(2x)`` has no minimum if one of both is zero, and no preference if both are."""
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, CLASSES)).double()
    norm = closed_form(model, flat_batch())
    squares = {parameter: torch.ones_like(parameter).detach() for parameter in model.parameters()}
    for parameter in model[0].parameters():
        squares[parameter][[0, 2]] = 0
    squares[model[2].weight][:, [1, 2]] = 0
    variables = norm.factor_variables
    norm = SquaredGradientNormOfFactors(variables, squares, zeros(variables))
    trajectory = norm.balance(zeros(variables), sweeps=9, bound=2.0)
    first, last = variables.scaled["0.weight"], variables.scaled["2.weight"]
    factors = first.factors(variables.log_tau(trajectory.x).exp()).expand(4, 5)[:, 0]
    middle = ((5 + 1) / CLASSES) ** 0.25
    expected = torch.tensor([math.exp(-2.0), math.exp(2.0), 1.0, middle], dtype=torch.float64)
    torch.testing.assert_close(factors, expected, rtol=1e-9, atol=0)
    back = last.factors(variables.log_tau(trajectory.x).exp()).expand(CLASSES, 4)[0]
    torch.testing.assert_close(back, 1 / expected, rtol=1e-9, atol=0)


def test_balancing_ends_after_its_sweeps():
    norm = closed_form(*deep())
    trajectory = norm.balance(zeros(norm.factor_variables), sweeps=1, bound=50.0)
    assert (trajectory.stopped, trajectory.steps) == ("steps done", 1)


def test_the_ascent_ends_at_finite_norms():
    norm = closed_form(*deep())
    trajectory = norm.ascend(zeros(norm.factor_variables), lr=1e3, steps=5, cap=math.inf, rule="fixed", bound=1e4)
    assert math.isfinite(trajectory.squared_norms[-1])
    assert trajectory.squared_norms[-1] > 1e100


@settings(deadline=None, max_examples=30, derandomize=True)
@given(mlps(), st.floats(1.001, 5.0), st.floats(0.01, 3.0))
def test_the_ascent_is_monotone_within_cap_and_bound(made, factor, lr):
    norm = closed_form(*made)
    start = zeros(norm.factor_variables)
    cap = factor * math.sqrt(norm.at(start))
    trajectory = norm.ascend(start, lr=lr, steps=20, cap=cap, rule="cap", bound=1.5)
    assert all(
        later > earlier for earlier, later in zip(trajectory.squared_norms, trajectory.squared_norms[1:], strict=False)
    )
    assert trajectory.squared_norms[-1] <= cap**2 * (1 + 1e-12)
    assert norm.at(trajectory.x) == trajectory.squared_norms[-1]
    assert float(trajectory.x.abs().amax()) <= 1.5
    if trajectory.stopped == "cap reached":
        assert trajectory.squared_norms[-1] >= (0.98 * cap) ** 2


def test_a_step_that_is_too_long_ends_within_two_percent_below_the_cap():
    norm = closed_form(*deep())
    start = zeros(norm.factor_variables)
    cap = 1.5 * math.sqrt(norm.at(start))
    trajectory = norm.ascend(start, lr=5.0, steps=1, cap=cap, rule="cap", bound=50.0)
    assert 0.98 * cap <= math.sqrt(trajectory.squared_norms[1]) <= cap
