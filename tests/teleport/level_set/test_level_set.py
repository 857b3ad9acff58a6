"""Linearised level-set steps: closed forms, an independent NumPy implementation, the loss bound, the cost per step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from teleport import LevelSet
from tests.teleport.networks import PLAIN, batches_of, cross_entropy

FEW = settings(derandomize=True, max_examples=12, deadline=None)


class Vector(nn.Module):
    """The argument of a test function, as a module."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(values, dtype=torch.float64))


def ellipse(model: nn.Module, curvatures: Tensor) -> Tensor:
    return (curvatures * model.value.square()).sum() / 2


def rosenbrock(model: nn.Module, batch: float) -> Tensor:
    x, y = model.value
    return batch * (y - x**2) ** 2 + (1 - x) ** 2


def rosenbrock_in_numpy(w: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    x, y = w
    value = 100 * (y - x**2) ** 2 + (1 - x) ** 2
    gradient = np.array([-400 * x * (y - x**2) - 2 * (1 - x), 200 * (y - x**2)])
    return value, gradient, np.array([[1200 * x**2 - 400 * y + 2, -400 * x], [-400 * x, 200.0]])


INPUTS = np.random.default_rng(0).normal(size=(7, 4))
LABELS = np.array([1.0, -1, 1, 1, -1, -1, 1])


def logistic(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return torch.nn.functional.softplus(-batch[1] * (batch[0] @ model.value)).mean()


def logistic_in_numpy(w: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    margins = LABELS * (INPUTS @ w)
    wrong = 1 / (1 + np.exp(margins))
    hessian = (INPUTS.T * (wrong * (1 - wrong))) @ INPUTS / len(LABELS)
    return float(np.mean(np.log1p(np.exp(-margins)))), -INPUTS.T @ (LABELS * wrong) / len(LABELS), hessian


def numpy_implementation(function, w, *, rho, steps, cap=np.inf, tolerance=1e-3, guarded=True):
    """The points that the method visits, computed in NumPy from the formulas."""
    longest, visited = rho, [w.copy()]
    level = function(w)[0]
    gamma = 1 / max(1, abs(level))

    def merit(point):
        value, gradient, _ = function(point)
        return 0.5 * np.log(gradient @ gradient) - gamma * max(0, value - level)

    for _ in range(steps):
        f, g, hessian = function(w)
        if np.linalg.norm(g) > 0.98 * cap:
            break
        square = g @ g
        q = hessian @ g / square
        multiplier = max(0, q @ g / square)
        left = q - multiplier * g
        if f - level <= 1e-6 and multiplier * (level - f) <= 1e-6 and left @ left <= 1e-6:
            break
        gamma = max(gamma, 2 * multiplier)
        for _ in range(26):
            v = max(0, (rho * (g @ hessian @ g) / square + f - level) / square)
            trial = w + rho * q - v * g
            value, gradient, _ = function(trial)
            kept = not guarded or value - level <= tolerance * max(1, abs(level))
            if kept and np.linalg.norm(gradient) <= cap and merit(trial) > merit(w):
                break
            rho = rho / 2
        else:
            break
        w = trial
        rho = min(longest, 2 * rho)
        visited.append(w.copy())
    return visited


PROBLEMS = {
    "rosenbrock": (rosenbrock, rosenbrock_in_numpy, [-1.0, 1.5], 100.0),
    "rosenbrock, whose loss falls": (rosenbrock, rosenbrock_in_numpy, [0.62, 1.56], 100.0),
    "logistic": (logistic, logistic_in_numpy, [0.3, -0.2, 0.5, 0.1], tuple(map(torch.from_numpy, (INPUTS, LABELS)))),
}


@pytest.mark.parametrize("options", [{}, {"relative_cap": 2.0}, {"lr": 1.0, "guard": "none"}], ids=str)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_trajectory_matches_an_independent_implementation(problem, options):
    loss_fn, in_numpy, start, batch = PROBLEMS[problem]
    start = np.array(start)
    expected = numpy_implementation(
        in_numpy,
        start.copy(),
        rho=options.get("lr", 0.1),
        steps=20,
        cap=options.get("relative_cap", np.inf) * np.linalg.norm(in_numpy(start)[1]),
        guarded=options.get("guard") != "none",
    )
    model = Vector(*start)
    report = LevelSet(steps=20, lr_unit="absolute", **{"relative_cap": None, **options})(model, [batch], loss_fn)
    assert len(expected) > 2
    assert report.steps == len(expected) - 1
    np.testing.assert_allclose(model.value.detach().numpy(), expected[-1], rtol=1e-10, atol=1e-10)
    losses = [in_numpy(point)[0] for point in expected]
    norms = [np.linalg.norm(in_numpy(point)[1]) for point in expected]
    assert [record.loss for record in report.batches[0].trace] == pytest.approx(losses, rel=1e-10)
    assert [record.gradient_norm for record in report.batches[0].trace] == pytest.approx(norms, rel=1e-10)


def test_the_first_step_on_a_quadratic():
    """``w + rho (H g - (g^T H g / |g|^2) g) / |g|^2`` if the constraint holds with equality."""
    curvatures, w = torch.tensor([1.0, 9.0]).double(), torch.tensor([8.0, -2.0]).double()
    model = Vector(*w.tolist())
    report = LevelSet(lr=1e-2, lr_unit="absolute", steps=1)(model, [curvatures], ellipse)
    g = curvatures * w
    turned = curvatures * g - (g @ (curvatures * g)) / (g @ g) * g
    torch.testing.assert_close(model.value.detach(), w + 1e-2 * turned / (g @ g), rtol=1e-13, atol=0)
    assert report.steps == 1


def test_it_ends_at_the_largest_gradient_norm_of_an_ellipse():
    """On ``x^2 + 9 y^2 = 2 c`` that is x = 0, with gradient norm ``3 sqrt(2 c)``."""
    model, curvatures = Vector(8.0, -2.0), torch.tensor([1.0, 9.0]).double()
    report = LevelSet(lr=1e3, steps=500)(model, [curvatures], ellipse)
    assert report.batches[0].stopped == "stationary"
    assert report.gradient_norm_after == pytest.approx(3 * math.sqrt(2 * report.loss_before), rel=1e-3)
    assert report.loss_after == pytest.approx(report.loss_before, abs=1e-6)


@pytest.mark.parametrize("curvature", [0.5, 4.0])
def test_every_point_of_a_circle_is_stationary(curvature):
    model = Vector(3.0, 4.0)
    report = LevelSet()(model, [torch.full((2,), curvature).double()], ellipse)
    assert (report.batches[0].stopped, report.steps, report.no_op) == ("stationary", 0, True)
    assert "no step" in report.reasons()


def test_a_minimum_is_stationary():
    report = LevelSet()(Vector(0.0, 0.0), [torch.ones(2).double()], ellipse)
    assert (report.batches[0].stopped, report.no_op) == ("stationary", True)


def test_a_point_with_an_infinite_loss_is_not_moved():
    report = LevelSet()(Vector(math.inf, 0.0), [torch.ones(2).double()], ellipse)
    assert report.batches[0].reason.startswith("not finite")
    assert report.no_op


@pytest.mark.parametrize("constant", [math.inf, -math.inf, math.nan])
def test_a_loss_that_is_not_finite_has_no_level_set_whatever_its_gradients(constant):
    report = LevelSet()(Vector(8.0, -2.0), [torch.tensor([1.0, 9.0])], lambda *given: ellipse(*given) + constant)
    assert math.isfinite(report.batches[0].gradient_norm_before)
    assert (report.batches[0].stopped, report.steps, report.no_op) == ("not finite", 0, True)


@FEW
@given(st.floats(1e-3, 10.0), st.sampled_from([1e-4, 1e-3, 1e-1]), st.sampled_from(["transaction", "none"]))
def test_the_violation_is_bounded(lr, tolerance, guard):
    model, batch = PLAIN.make()
    report = LevelSet(lr=lr, steps=15, tolerance=tolerance, guard=guard)(model, [batch], cross_entropy)
    trace = report.batches[0].trace
    unit = max(1.0, abs(trace[0].loss))
    growth = 0.0
    for record in trace:
        growth = max(growth, math.log(record.gradient_norm / trace[0].gradient_norm))
        rise = record.loss - trace[0].loss
        assert rise <= unit * growth + 1e-12
        assert guard == "none" or rise <= tolerance * unit
    assert growth > 0
    assert report.batches[0].accepted


class Squared(torch.autograd.Function):
    """``x^2``, whose second derivatives are counted."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return Slope.apply(x, grad)


class Slope(torch.autograd.Function):
    """``2 x grad``, the first derivative."""

    products = 0

    @staticmethod
    def forward(ctx, x, grad):
        ctx.save_for_backward(x, grad)
        return 2 * x * grad

    @staticmethod
    def backward(ctx, outer):
        Slope.products += 1
        x, grad = ctx.saved_tensors
        return 2 * grad * outer, 2 * x * outer


@pytest.mark.parametrize("lr", [0.1, 1e3])
def test_one_hessian_vector_product_per_step(lr):
    """Also if steps are halved, at ``lr`` 1000."""
    curvatures = torch.tensor([1.0, 9.0]).double()

    def loss(model, batch):
        return (batch * Squared.apply(model.value)).sum() / 2

    Slope.products, model = 0, Vector(8.0, -2.0)
    report = LevelSet(lr=lr, steps=4)(model, [curvatures], loss)
    assert report.steps == 4
    assert Slope.products == 4


def test_it_stops_below_the_cap():
    model, batch = PLAIN.make()
    report = LevelSet(lr=1.0, steps=200, relative_cap=3.0)(model, [batch], cross_entropy)
    cap = 3 * report.gradient_norm_before
    assert report.batches[0].stopped == "cap reached"
    assert 0.98 * cap <= report.gradient_norm_after <= cap
    again = LevelSet(cap=report.gradient_norm_after / 2)(model, [batch], cross_entropy)
    assert (again.batches[0].stopped, again.no_op) == ("above cap", True)


def test_every_trainable_parameter_moves_and_no_other():
    model, batch = PLAIN.make()
    model[2].bias.requires_grad_(False)
    frozen = model[2].bias.clone()
    report = LevelSet(steps=3)(model, [batch], cross_entropy)
    changes = {layer.name: layer.relative_change for layer in report.layers}
    assert set(changes) == {name for name, _ in model.named_parameters()} - {"2.bias"}
    assert all(change > 0 for change in changes.values())
    assert torch.equal(model[2].bias, frozen)


def test_the_level_of_a_batch_is_its_loss_at_its_start():
    model, _ = PLAIN.make()
    batches = batches_of(3)
    report = LevelSet(lr=0.5, steps=5, relative_cap=4.0)(model, batches, cross_entropy)
    for batch in report.batches:
        assert batch.loss_after <= batch.loss_before + 1e-3 * max(1.0, batch.loss_before)
        assert batch.gradient_norm_after >= batch.gradient_norm_before
    assert report.batches[-1].loss_after == pytest.approx(float(cross_entropy(model, batches[-1]).detach()))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"lr": 0}, "lr must be above 0"),
        ({"cap": -1}, "cap must be above 0"),
        ({"relative_cap": 0}, "relative_cap must be above 0"),
        ({"tolerance": float("nan")}, "tolerance must be above 0"),
        ({"steps": -1}, "steps must not be negative"),
        ({"guard": "maybe"}, "guard must be one of transaction, none"),
    ],
)
def test_arguments_outside_their_range(arguments, said):
    with pytest.raises(ValueError, match=said):
        LevelSet(**arguments)
