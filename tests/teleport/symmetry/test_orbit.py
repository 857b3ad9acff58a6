"""The orbit of a group action: closed forms on quadratics, slow references, and invalid actions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from teleport import LossAfterStep, Orbit


class Point(nn.Module):
    """Parameters without a network."""

    def __init__(self, *values: float, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values, dtype=dtype))


def ellipse(model, batch):
    """``x^2 + 9 y^2``, times what the batch holds."""
    return batch * (model.w[0] ** 2 + 9 * model.w[1] ** 2)


def turn(theta, weights):
    """Rotations of (x, 3 y)."""
    u, v = weights["w"][0], 3 * weights["w"][1]
    c, s = theta.cos(), theta.sin()
    return {"w": torch.stack([c * u - s * v, (s * u + c * v) / 3])}


ONE = [torch.ones((), dtype=torch.float64)]


@pytest.mark.parametrize("start", [(8.0, -2.0), (0.1, 3.0), (-5.0, -0.01)])
def test_on_a_quadratic_it_converges_to_the_eigenvector_of_the_largest_eigenvalue(start):
    """On ``f = f_0`` the norm is largest, ``6 sqrt(f_0)``, at x = 0 (Zhao et al. 2022)."""
    model = Point(*start)
    level = start[0] ** 2 + 9 * start[1] ** 2
    report = Orbit(turn, steps=30, relative_cap=None)(model, ONE, ellipse)
    assert report.gradient_norm_after == pytest.approx(6 * math.sqrt(level), rel=1e-9)
    assert float(model.w[0].detach().abs()) < 1e-3 * math.sqrt(level)
    assert float(model.w[1].detach().abs()) == pytest.approx(math.sqrt(level) / 3, rel=1e-6)
    assert report.loss_after == pytest.approx(level, rel=1e-12)


@pytest.mark.parametrize("objective", ["squared_gradient_norm", "log_gradient_norm"])
def test_full_steps_are_those_of_a_slow_reference(objective):
    """Theta by central differences of the closed form of the norm along the orbit."""
    model, lr, radius = Point(8.0, -2.0), {"squared_gradient_norm": 1e-4}.get(objective, 0.2), 10.0

    def value(theta: float) -> float:
        square = 4 * (radius * math.cos(theta)) ** 2 + 36 * (radius * math.sin(theta)) ** 2
        return square / 2 if objective == "squared_gradient_norm" else math.log(square) / 2

    start = theta = math.atan2(-6.0, 8.0)
    for _ in range(5):
        theta += lr * (value(theta + 1e-6) - value(theta - 1e-6)) / 2e-6
    report = Orbit(turn, lr=lr, steps=5, objective=objective, step="fixed")(model, ONE, ellipse)
    expected = torch.tensor([radius * math.cos(theta), radius * math.sin(theta) / 3], dtype=torch.float64)
    torch.testing.assert_close(model.w.detach(), expected, rtol=1e-6, atol=1e-8)
    assert abs(theta - start) > 0.1
    assert len(report.batches[0].trace) == 6


def test_an_objective_that_is_lowered():
    """After a step of descent f is ``x^2 (1 - 2 lr)^2 + 9 y^2 (1 - 18 lr)^2``, at this rate lowest on the y axis."""
    model, lr = Point(8.0, -2.0), 0.08
    report = Orbit(turn, lr=0.01, steps=50, objective=LossAfterStep(lr))(model, ONE, ellipse)
    x, y = model.w.detach().tolist()
    assert x**2 * (1 - 2 * lr) ** 2 + 9 * y**2 * (1 - 18 * lr) ** 2 == pytest.approx(100 * (1 - 18 * lr) ** 2, rel=1e-6)
    assert report.loss_after == pytest.approx(100.0, rel=1e-12)


def test_steps_end_below_the_cap():
    model = Point(8.0, -2.0)
    report = Orbit(turn, cap=45.0)(model, ONE, ellipse)
    assert 0.98 * 45 <= report.gradient_norm_after <= 45
    assert report.batches[0].stopped == "cap reached"


def test_each_batch_starts_from_the_weights_after_the_last_one():
    model, batches = Point(8.0, -2.0), [torch.ones((), dtype=torch.float64), torch.full((), 2.0, dtype=torch.float64)]
    report = Orbit(turn, lr=0.1, steps=2)(model, batches, ellipse)
    first, second = report.batches
    assert second.gradient_norm_before == pytest.approx(2 * first.gradient_norm_after, rel=1e-12)
    assert second.gradient_norm_after > second.gradient_norm_before


def test_without_a_step_the_weights_are_the_same_bit_for_bit():
    """The action at 0 is the identity up to rounding: (3 y) / 3 is not y."""
    for values, method in [
        ((8.0, -2.1), Orbit(turn, steps=0)),
        ((0.0, 2.1), Orbit(turn)),
        ((8.0, -2.1), Orbit(turn, cap=1)),
    ]:
        model = Point(*values)
        before = model.w.detach().clone()
        report = method(model, ONE, ellipse)
        assert torch.equal(model.w, before)
        assert report.no_op


def test_a_group_of_matrices_on_two_linear_maps():
    """U V stays U V under V -> (I + T) V, U -> U (I + T)^-1, whatever the data."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Linear(5, 3, bias=False)).double()
    batch = torch.randn(20, 4).double(), torch.randn(20, 3).double()

    def action(theta, weights):
        element = torch.eye(5, dtype=theta.dtype) + theta
        return {
            "0.weight": element @ weights["0.weight"],
            "1.weight": torch.linalg.solve(element, weights["1.weight"], left=False),
        }

    product = (model[1].weight @ model[0].weight).detach().clone()
    method = Orbit(action, shape=(5, 5), relative_cap=1.5)
    report = method(model, [batch], lambda net, b: nn.functional.mse_loss(net(b[0]), b[1]))
    torch.testing.assert_close((model[1].weight @ model[0].weight).detach(), product, rtol=1e-11, atol=1e-12)
    assert report.gradient_norm_after > 1.3 * report.gradient_norm_before
    assert {layer.name for layer in report.layers if layer.relative_change} == {"0.weight", "1.weight"}


def test_an_action_that_changes_the_loss_is_rolled_back():
    def stretch(theta, weights):
        return {"w": theta.exp() * weights["w"]}

    model = Point(8.0, -2.0)
    report = Orbit(stretch)(model, ONE, ellipse)
    assert model.w.tolist() == [8.0, -2.0]
    assert (report.accepted, report.batches[0].stopped) == (False, "rolled back")
    assert "the loss moved from 100" in report.batches[0].reason


def test_single_precision():
    model = Point(8.0, -2.0, dtype=torch.float32)
    report = Orbit(turn)(model, [torch.ones(())], ellipse)
    assert model.w.dtype == torch.float32
    assert report.loss_after == pytest.approx(100.0, rel=1e-5)
    assert report.gradient_norm_after == pytest.approx(60.0, rel=1e-3)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (lambda theta, weights: {"v": weights["w"] * theta.cos()}, "moves 'v', which is not a trainable parameter"),
        (lambda theta, weights: {"w": weights["w"].sum() * theta.cos()}, r"returns 'w' of shape \[\], expected \[2\]"),
        (lambda theta, weights: {"w": weights["w"] * theta}, "moves 'w' at theta = 0, where it must be the identity"),
        (lambda theta, weights: {"w": weights["w"] * 1}, "does not depend on theta"),
        (lambda theta, weights: {}, "does not depend on theta"),
    ],
)
def test_invalid_actions_are_refused(action, said):
    model = Point(8.0, -2.0)
    with pytest.raises(ValueError, match=said):
        Orbit(action)(model, ONE, ellipse)
    assert model.w.tolist() == [8.0, -2.0]


def test_a_frozen_parameter_must_not_be_moved():
    model = Point(8.0, -2.0)
    model.other = nn.Parameter(torch.ones((), dtype=torch.float64))
    model.w.requires_grad_(False)
    with pytest.raises(ValueError, match="'w', which is not a trainable parameter"):
        Orbit(turn)(model, ONE, lambda net, batch: ellipse(net, batch) * net.other)


@pytest.mark.parametrize(
    "arguments",
    [{"lr": 0.0}, {"steps": -1}, {"step": "big"}, {"guard": "some"}, {"cap": -1.0}, {"objective": "norm"}],
)
def test_arguments_out_of_their_range_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Orbit(turn, **arguments)
