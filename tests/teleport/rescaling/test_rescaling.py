"""Rescaling: the same function on all data, the gradient norm at the cap, the minimum, the guard."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from teleport import Rescaling
from tests.teleport.networks import CLASSES, Calls, cross_entropy
from tests.teleport.rescalable import cnns, factors_of, flat_batch, gradient_norm, mlp, mlps, relative_error

MODELS = st.one_of(mlps(), cnns())


@settings(deadline=None, max_examples=60, derandomize=True)
@given(MODELS, st.sampled_from(["ascent", "balance"]))
def test_the_function_is_unchanged_on_any_data(made, mode):
    model, batch = made
    others = 3 * torch.randn(20, *batch[0].shape[1:]).double()
    before = model(others)
    report = Rescaling(mode, lr=0.3, steps=10)(model, [batch], cross_entropy)
    assert relative_error(model(others), before) < 1e-12
    assert all(layer.reason for layer in report.layers if not layer.relative_change)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(MODELS, st.sampled_from(["ascent", "balance"]))
def test_the_closed_form_matches_the_gradient_norm_by_autograd(made, mode):
    model, batch = made
    before = gradient_norm(model, batch)
    report = Rescaling(mode, lr=0.3, steps=10)(model, [batch], cross_entropy)
    (only,) = report.batches
    assert only.trace[0].gradient_norm == pytest.approx(before, rel=1e-10)
    assert only.trace[-1].gradient_norm == pytest.approx(gradient_norm(model, batch), rel=1e-10)
    assert only.gradient_norm_after == pytest.approx(gradient_norm(model, batch), rel=1e-10)
    norms = [record.gradient_norm for record in only.trace]
    assert norms == sorted(norms, reverse=mode == "balance")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [1.5, 4.0])
def test_the_ascent_ends_at_the_cap(dtype, factor):
    model = mlp(5, 8, 8, CLASSES).to(dtype)
    batch = flat_batch()[0].to(dtype), flat_batch()[1]
    cap = factor * gradient_norm(model, batch)
    for method in (Rescaling(cap=cap, relative_cap=None), Rescaling(relative_cap=factor)):
        moved = copy.deepcopy(model)
        report = method(moved, [batch], cross_entropy)
        assert report.batches[0].stopped == "cap reached"
        assert 0.98 * cap <= gradient_norm(moved, batch) <= cap * (1 + 1e-5)
    report = Rescaling(cap=cap)(moved, [batch], cross_entropy)
    assert (report.batches[0].stopped, report.no_op) == ("above cap", True)


def test_a_fixed_step_may_pass_the_cap():
    model, batch = mlp(5, 8, CLASSES), flat_batch()
    cap = 1.2 * gradient_norm(model, batch)
    report = Rescaling(lr=1.5, step="fixed", cap=cap)(model, [batch], cross_entropy)
    assert (report.batches[0].steps, report.batches[0].stopped) == (1, "cap reached")
    assert gradient_norm(model, batch) > 1.05 * cap


def test_the_bound_holds_over_the_whole_event():
    model = mlp(5, 8, CLASSES)
    report = Rescaling(bound=0.5, lr=0.2)(model, [flat_batch() for _ in range(3)], cross_entropy)
    log_tau = factors_of(report, model[0].bias).log()
    assert float(log_tau.abs().max()) == pytest.approx(0.5, rel=1e-12)
    assert report.batches[0].stopped == "bound reached"


def test_a_step_changes_no_log_tau_by_more_than_the_rate():
    model = mlp(5, 8, CLASSES)
    report = Rescaling(bound=5.0, lr=0.2, steps=1)(model, [flat_batch()], cross_entropy)
    assert float(factors_of(report, model[0].bias).log().abs().max()) == pytest.approx(0.2, rel=1e-12)


def test_batches_are_taken_in_turn_and_each_stays_below_the_cap():
    model, batches = mlp(5, 8, 8, CLASSES), [flat_batch() for _ in range(4)]
    cap = 3.0 * sum(gradient_norm(model, batch) for batch in batches) / 4
    report = Rescaling(relative_cap=3.0)(model, batches, cross_entropy)
    assert len(report.batches) == 4
    assert all(each.gradient_norm_after <= cap * (1 + 1e-9) for each in report.batches if each.steps)
    assert gradient_norm(model, batches[-1]) == pytest.approx(report.batches[-1].gradient_norm_after, rel=1e-10)
    assert abs(report.drift) < 1e-12  # exact on all batches, also those of earlier ascents


def test_one_hidden_layer_is_balanced_in_closed_form():
    """tau = sqrt(|gradient of a row and its bias| / |gradient of the column|), after which both norms are equal."""
    model, batch = mlp(5, 8, CLASSES), flat_batch()
    above, bias, below, _ = torch.autograd.grad(cross_entropy(model, batch), list(model.parameters()))
    expected = ((above.square().sum(1) + bias.square()) / below.square().sum(0)) ** 0.25
    report = Rescaling("balance", bound=20.0)(model, [batch], cross_entropy)
    torch.testing.assert_close(factors_of(report, model[0].bias), expected, rtol=1e-10, atol=0)
    above, bias, below, _ = torch.autograd.grad(cross_entropy(model, batch), list(model.parameters()))
    torch.testing.assert_close(above.square().sum(1) + bias.square(), below.square().sum(0), rtol=1e-9, atol=0)


def test_balancing_takes_all_batches_together_and_is_idempotent():
    model, batches = mlp(5, 8, 8, CLASSES), [flat_batch() for _ in range(3)]
    mean = sum(gradient_norm(model, batch) ** 2 for batch in batches) / 3
    report = Rescaling("balance", bound=20.0)(model, batches, cross_entropy)
    assert [batch.stopped for batch in report.batches] == ["minimum reached"] * 3
    least = sum(gradient_norm(model, batch) ** 2 for batch in batches) / 3
    assert least < mean
    assert report.batches[0].trace[-1].gradient_norm ** 2 == pytest.approx(least, rel=1e-10)
    again = Rescaling("balance", bound=20.0)(model, batches, cross_entropy)
    assert again.relative_change < 1e-8


def test_the_guard_undoes_a_change_of_the_loss_that_tracing_cannot_see():
    """The loss reads a weight through a NumPy array that shares its memory."""
    model, batch = mlp(5, 8, CLASSES), flat_batch()
    memory = model[0].weight.detach().numpy()
    start = model[0].weight.detach().clone()

    def loss_fn(model, batch):
        return cross_entropy(model, batch) + float((memory**2).sum())

    report = Rescaling(tolerance=1e-6)(model, [batch], loss_fn)
    assert (report.accepted, report.no_op, report.group) == (False, True, {})
    assert torch.equal(model[0].weight, start)
    assert "tolerance" in report.batches[0].reason
    kept = Rescaling(guard="none")(model, [batch], loss_fn)
    assert not kept.no_op


def test_a_channel_without_gradient_has_factor_1():
    model, batch = mlp(5, 8, CLASSES), flat_batch()
    with torch.no_grad():
        model[0].bias[3] = -1e3
    model[1] = nn.ReLU()  # the channel is never active
    for mode in ("ascent", "balance"):
        report = Rescaling(mode, bound=1.0)(model, [batch], cross_entropy)
        assert float(factors_of(report, model[0].bias)[3]) == 1


def test_scalar_parameters_are_scaled():
    """A residual branch may start with a scalar factor."""

    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return net.last(torch.relu(net.factor * net.first(x)))

    torch.manual_seed(0)
    model = Calls(forward, first=nn.Linear(5, 8), factor=nn.Parameter(torch.tensor(0.3)), last=nn.Linear(8, CLASSES))
    model, batch = model.double(), flat_batch()
    before = model(batch[0])
    report = Rescaling("balance")(model, [batch], cross_entropy)
    assert relative_error(model(batch[0]), before) < 1e-12
    assert float(model.factor.detach()) != 0.3
    assert report.batches[0].trace[-1].gradient_norm == pytest.approx(gradient_norm(model, batch), rel=1e-10)


def test_buffers_modes_gradients_and_random_state_are_unchanged():
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, CLASSES)).double()
    twin, batch, state = copy.deepcopy(model), flat_batch(), torch.get_rng_state()
    Rescaling()(model, [batch], cross_entropy)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for one, other in zip(model.buffers(), twin.buffers(), strict=True):
        assert torch.equal(one, other)
    Rescaling()(twin, [batch], cross_entropy)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "up"}, "mode must be one of ascent, balance"),
        ({"bound": 0.0}, "bound must be above 0"),
        ({"lr": -1.0}, "lr must be above 0"),
        ({"steps": -1}, "steps must not be negative"),
        ({"step": "big"}, "step must be one of"),
        ({"cap": 0.0}, "cap must be above 0"),
        ({"relative_cap": math.nan}, "relative_cap must be above 0"),
        ({"guard": "some"}, "guard must be one of"),
        ({"tolerance": 0.0}, "tolerance must be above 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Rescaling(**options)
