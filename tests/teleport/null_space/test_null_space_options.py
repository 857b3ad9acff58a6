"""Caps, thresholds, separate constraints and the guard."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from teleport import NullSpace, RandomNullSpace
from tests.teleport.networks import PLAIN, batches_of, changes, cross_entropy

FEW = settings(derandomize=True, max_examples=15, deadline=None)


@FEW
@given(st.floats(1.1, 50.0), st.floats(0.1, 1e4))
def test_a_step_ends_at_the_cap(factor, lr):
    model, batch = PLAIN.make()
    report = NullSpace(lr=lr, steps=40, relative_cap=factor)(model, [batch], cross_entropy)
    cap = factor * report.gradient_norm_before
    assert report.gradient_norm_after <= cap
    assert report.batches[0].stopped in ("cap reached", "steps done")
    if report.batches[0].stopped == "cap reached":
        assert report.gradient_norm_after >= 0.98 * cap


def test_the_smaller_of_two_caps_holds():
    model, batch = PLAIN.make()
    report = NullSpace(lr=1e3, cap=1e9, relative_cap=3.0)(model, [batch], cross_entropy)
    assert report.gradient_norm_after <= 3 * report.gradient_norm_before
    model, batch = PLAIN.make()
    absolute = 1.5 * report.gradient_norm_before
    assert (
        NullSpace(lr=1e3, cap=absolute, relative_cap=3.0)(model, [batch], cross_entropy).gradient_norm_after <= absolute
    )


@pytest.mark.parametrize("objective_params", ["all", "moved"])
def test_a_relative_cap_refers_to_the_norm_before_the_whole_event(objective_params):
    model, _ = PLAIN.make()
    batches = batches_of(6)
    reference = copy.deepcopy(model)
    norms = []
    for batch in batches:
        gradients = dict(
            zip(
                [name for name, _ in reference.named_parameters()],
                torch.autograd.grad(cross_entropy(reference, batch), list(reference.parameters())),
                strict=True,
            )
        )
        kept = [g for name, g in gradients.items() if objective_params == "all" or not name.startswith("0.")]
        norms.append(float(sum(g.square().sum() for g in kept)) ** 0.5)
    cap = 2 * sum(norms) / len(norms)
    method = NullSpace(lr=1e3, relative_cap=2.0, objective_params=objective_params)
    report = method(model, batches, cross_entropy)
    landed = [batch.gradient_norm_after for batch in report.batches if batch.stopped == "cap reached"]
    assert landed
    assert all(0.98 * cap <= norm <= cap * (1 + 1e-12) for norm in landed)


def test_the_objective_over_moved_parameters_excludes_the_first_layer():
    model, batch = PLAIN.make()
    moved = [p for name, p in model.named_parameters() if not name.startswith("0.")]
    gradients = torch.autograd.grad(cross_entropy(model, batch), moved)
    expected = float(sum(g.square().sum() for g in gradients)) ** 0.5
    report = NullSpace(steps=1, objective_params="moved")(model, [batch], cross_entropy)
    assert report.gradient_norm_before == pytest.approx(expected, rel=1e-12)


def test_a_threshold_below_one_gives_more_growth_and_a_bounded_change_of_the_loss():
    """Correlated features: few directions have most of the energy, so protecting only these leaves many free."""
    generator = torch.Generator().manual_seed(9)
    inputs = torch.randn(64, 6, generator=generator).double()
    batch = (inputs, torch.arange(64) % 3)
    norms, losses = {}, {}
    for threshold in (1.0, 0.999):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 3)).double()
        report = NullSpace(lr=0.5, steps=4, threshold=threshold, guard="none")(model, [batch], cross_entropy)
        norms[threshold] = report.gradient_norm_after / report.gradient_norm_before
        losses[threshold] = abs(report.loss_after - report.loss_before)
    assert losses[1.0] < 1e-10
    assert 1e-10 < losses[0.999] < 0.1
    assert norms[0.999] > norms[1.0]


def test_with_a_separate_constraint_the_first_layer_moves():
    model, _ = PLAIN.make()
    objective, constraint = batches_of(2), batches_of(3, n=1)[1:]
    before = [model(inputs).detach() for inputs, _ in constraint]
    report = NullSpace(lr=1.0, relative_cap=5.0)(model, objective, cross_entropy, constraint=iter(constraint))
    assert changes(report)["0.weight"] > 1e-6
    assert report.batches[0].accepted
    assert report.batches[0].loss_after != pytest.approx(report.batches[0].loss_before, rel=1e-3)
    for (inputs, _), outputs in zip(constraint, before, strict=True):
        torch.testing.assert_close(model(inputs).detach(), outputs, atol=1e-10, rtol=1e-10)
    assert next(layer for layer in report.layers if layer.name == "0.weight").ranks == [2]  # decomposed once


def test_the_guard_is_on_the_loss_of_the_constraint_if_there_is_one():
    model, _ = PLAIN.make()
    start = copy.deepcopy(model.state_dict())
    objective, constraint = batches_of(1), batches_of(2)[1:]
    method = NullSpace(lr=1e3, threshold=0.5, relative_cap=50.0, tolerance=1e-6)
    report = method(model, objective, cross_entropy, constraint=constraint)
    assert not report.accepted
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_the_transaction_restores_the_parameters_bit_for_bit_if_the_loss_changed():
    model, batch = PLAIN.make()
    start = copy.deepcopy(model.state_dict())
    method = NullSpace(lr=1e3, threshold=0.5, relative_cap=50.0, tolerance=1e-6)
    report = method(model, [batch], cross_entropy)
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())
    assert report.batches[0].stopped == "rolled back"
    assert "the loss moved from" in report.batches[0].reason
    assert report.gradient_norm_after == report.gradient_norm_before
    assert report.loss_after == report.loss_before
    assert (report.accepted, report.no_op, report.steps) == (False, True, 0)


def test_without_the_guard_a_changed_loss_is_kept():
    model, batch = PLAIN.make()
    method = NullSpace(lr=1e3, threshold=0.5, relative_cap=50.0, tolerance=1e-6, guard="none")
    report = method(model, [batch], cross_entropy)
    assert (report.accepted, report.no_op) == (True, False)
    assert float(cross_entropy(model, batch).detach()) == pytest.approx(report.loss_after)
    assert abs(report.drift) > 1e-3


@pytest.mark.parametrize("lr_unit", ["relative", "absolute"])
def test_the_transaction_undoes_infinite_parameters(lr_unit):
    """Also if the length of the step is beyond single precision, which torch takes no factors above."""
    model, batch = PLAIN.make(torch.float32)
    start = copy.deepcopy(model.state_dict())

    def steep(model, batch):
        return 1e4 * cross_entropy(model, batch)  # so that directions are not small

    report = NullSpace(lr=3e38, lr_unit=lr_unit, step="fixed", relative_cap=None)(model, [batch], steep)
    assert report.batches[0].reason.startswith("not finite")
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_a_diverged_model_is_reported_and_not_moved():
    model, batch = PLAIN.make()
    with torch.no_grad():
        model[0].bias.fill_(float("nan"))
    start = copy.deepcopy(model.state_dict())
    report = NullSpace(relative_cap=2.0)(model, [batch], cross_entropy)
    assert report.no_op
    assert "its inputs are not finite" in report.reasons()
    assert all(torch.equal(v, start[n]) or v.isnan().any() for n, v in model.state_dict().items())


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e20])
@pytest.mark.parametrize("method", ["plain", "random"])
def test_a_relative_length_is_of_weights_of_any_magnitude(method, scale):
    """The squares of the weights that move leave the range of single precision at both ends."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 50, bias=False), nn.Tanh(), nn.Linear(50, 3, bias=False))
    with torch.no_grad():
        model[2].weight.mul_(scale)
    batch = (torch.randn(10, 20), torch.randn(10, 3))
    loss_scale = min(1.0, 1 / scale)
    free = {"relative_cap": None, "guard": "none"}
    teleport = NullSpace(1e-4, 1, step="fixed", **free) if method == "plain" else RandomNullSpace(1e-4, **free)
    report = teleport(model, [batch], lambda net, each: (net(each[0]) * loss_scale - each[1]).square().mean())
    changes = {layer.name: layer.relative_change for layer in report.layers}
    assert changes["2.weight"] == pytest.approx(1e-4, rel=1e-3)
