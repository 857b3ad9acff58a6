"""The guarantees of every teleport method, on the same problems."""

from __future__ import annotations

import copy
import inspect
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import teleport
from teleport import (
    LevelSet,
    NullSpace,
    Symmetry,
    UnsupportedModel,
)
from tests.teleport.methods import (
    CLASSES,
    ROWS,
    after_it,
    every_method,
    gradient_norm,
    module_of,
    on_every_problem,
    unchanged,
    values,
)


def test_every_exported_method_has_a_row():
    def is_method(thing: Any) -> bool:
        calls = inspect.isclass(thing) and "__call__" in vars(thing)
        return (
            calls
            and thing not in (teleport.Teleporter, teleport.Auto)  # Auto tries others: tests/teleport/auto
            and {"model", "batches"} <= set(inspect.signature(thing.__call__).parameters)
        )

    exported = {name for name in teleport.__all__ if is_method(getattr(teleport, name))}
    assert exported == {type(row.make()).__name__ for row in ROWS}


@every_method
@on_every_problem
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_loss_is_kept_and_the_norm_rises_below_the_cap(row, problem, dtype):
    model, [batch] = problem.make(dtype)
    start = values(model)
    loss, norm = float(problem.loss_fn(model, batch).detach()), gradient_norm(model, problem, batch)
    report = row.make()(model, [batch], problem.loss_fn)
    assert not report.no_op
    assert not unchanged(model, start)
    assert {p.dtype for p in model.parameters()} == {dtype}
    after = after_it(model, report)
    rise = float(problem.loss_fn(after, batch).detach()) - loss
    kept = max(row.keeps, 1e-4 if dtype == torch.float32 else 0) * max(1.0, abs(loss))
    assert rise <= kept
    assert row.may_fall or rise >= -kept
    reached = gradient_norm(after, problem, batch)
    assert not row.raises_norm or reached >= norm * (1 - 1e-6)
    assert reached <= row.relative_cap * norm * (1 + 1e-5)


@every_method
def test_the_report_is_filled(row):
    model, batches = CLASSES.make(batches=3)
    start = values(model)
    first, norm = float(CLASSES.loss_fn(model, batches[0]).detach()), gradient_norm(model, CLASSES, batches[0])
    mean = sum(float(CLASSES.loss_fn(model, batch).detach()) for batch in batches) / 3
    report = row.make()(model, iter(batches), CLASSES.loss_fn)
    assert report.method
    assert report.seconds > 0
    assert report.loss_before == pytest.approx(mean)
    after = after_it(model, report)
    mean_after = sum(float(CLASSES.loss_fn(after, batch).detach()) for batch in batches) / 3
    assert report.loss_after == pytest.approx(mean_after)
    assert report.batches[0].gradient_norm_before == pytest.approx(norm)
    assert len(report.batches) == 3
    assert report.batches[0].loss_before == pytest.approx(first)
    assert report.batches[-1].loss_after == pytest.approx(float(CLASSES.loss_fn(after, batches[-1]).detach()))
    assert report.batches[-1].gradient_norm_after == pytest.approx(gradient_norm(after, CLASSES, batches[-1]))
    for moment in ("before", "after"):
        norms = [getattr(batch, f"gradient_norm_{moment}") for batch in report.batches]
        assert getattr(report, f"gradient_norm_{moment}") == pytest.approx(sum(norms) / 3)
    for batch in report.batches:
        assert batch.stopped
        assert batch.accepted == (not batch.reason)
        assert math.isfinite(batch.gradient_norm_after)
    moved = {module_of(name) for name, value in model.named_parameters() if not torch.equal(value, start[name])}
    said = {module_of(layer.name) for layer in report.layers if layer.relative_change}
    if report.group is not None:  # its layers are groups of channels
        names = {parameter: name for name, parameter in model.named_parameters()}
        said = {module_of(names[parameter]) for parameter in report.group}
    assert said == moved
    assert all(layer.reason for layer in report.layers if not layer.relative_change)


@every_method
def test_a_move_that_violates_the_guard_is_undone(row):
    """The loss is 1 higher at each evaluation, so every move violates the guard."""
    model, [batch] = CLASSES.make()
    start, calls = values(model), []

    def loss_fn(net: nn.Module, batch: Any) -> Tensor:
        calls.append(1)
        return CLASSES.loss_fn(net, batch) + len(calls)

    report = row.make()(model, [batch], loss_fn)
    if not row.guarded:
        assert not report.no_op
        return
    assert unchanged(model, start)
    assert (report.no_op, report.steps) == (True, 0)
    if not row.may_fall:  # a method that checks the loss itself takes no such step
        assert (report.accepted, report.batches[0].stopped) == (False, "rolled back")
    assert report.gradient_norm_after == report.gradient_norm_before


@every_method
@pytest.mark.parametrize("call", [1, 2, 4, 6])
def test_an_exception_restores_the_parameters(row, call):
    model, batches = CLASSES.make(batches=2)
    start, calls = values(model), []

    def loss_fn(net: nn.Module, batch: Any) -> Tensor:
        calls.append(1)
        if len(calls) == call:
            raise KeyError("on purpose")
        return CLASSES.loss_fn(net, batch)

    with pytest.raises(KeyError):
        row.make()(model, batches, loss_fn)
    assert unchanged(model, start)


@every_method
def test_same_call_same_numbers_whatever_the_global_random_state(row):
    results = []
    for seed in (1, 2):
        model, batches = CLASSES.make(torch.float32, batches=2)
        torch.manual_seed(seed)
        report = row.make()(model, batches, CLASSES.loss_fn)
        results.append((values(model), [(batch.trace, batch.stopped) for batch in report.batches]))
    assert results[0][1] == results[1][1]
    assert all(torch.equal(value, results[1][0][name]) for name, value in results[0][0].items())


@every_method
def test_all_state_but_the_parameters_is_unchanged(row):
    model, [batch] = CLASSES.make()
    model.register_buffer("calls", torch.zeros(()))
    model.register_forward_pre_hook(lambda net, args: net.calls.add_(1) and None)
    CLASSES.loss_fn(model, batch).backward()
    model.train()
    model[1].eval()
    inputs, identities = batch[0].clone(), [id(parameter) for parameter in model.parameters()]

    def state() -> list[Any]:
        gradients = [(id(p.grad), p.grad.clone().tolist()) for p in model.parameters()]
        modes = [module.training for module in model.modules()]
        needs = [parameter.requires_grad for parameter in model.parameters()]
        hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
        random = torch.random.get_rng_state().tolist()
        return [gradients, modes, needs, hooks, random, float(model.calls), torch.is_grad_enabled()]

    before = state()
    report = row.make()(model, [batch], CLASSES.loss_fn)
    assert not report.no_op
    assert state() == before
    assert [id(parameter) for parameter in model.parameters()] == identities
    assert torch.equal(batch[0], inputs)


@every_method
def test_a_call_under_no_grad(row):
    plain, [batch] = CLASSES.make()
    without = copy.deepcopy(plain)
    row.make()(plain, [batch], CLASSES.loss_fn)
    with torch.no_grad():
        row.make()(without, [batch], CLASSES.loss_fn)
    assert unchanged(without, values(plain))


@every_method
def test_invalid_calls_are_refused(row):
    model, [batch] = CLASSES.make()
    start = values(model)
    with pytest.raises(ValueError, match="at least one batch"):
        row.make()(model, [], CLASSES.loss_fn)
    with pytest.raises(ValueError, match="scalar tensor"):
        row.make()(model, [batch], lambda net, b: net(b[0]))
    with pytest.raises(ValueError, match="does not depend on any trainable parameter"):
        row.make()(model, [batch], lambda net, b: net(b[0]).sum().detach())
    assert unchanged(model, start)
    with pytest.raises(ValueError, match="no trainable parameter"):
        row.make()(model.requires_grad_(False), [batch], CLASSES.loss_fn)


@pytest.mark.parametrize(
    "method", [NullSpace(forward="each"), LevelSet(), Symmetry("2024")], ids=lambda method: type(method).__name__
)
def test_a_model_that_is_not_twice_differentiable_is_refused_with_the_name_of_the_operation(method):
    model, [batch] = CLASSES.make()
    model[1] = nn.Hardsigmoid()
    start = values(model)
    with pytest.raises(UnsupportedModel, match="cannot: derivative for aten::hardsigmoid_backward is not implemented"):
        method(model, [batch], CLASSES.loss_fn)
    assert unchanged(model, start)


@every_method
def test_a_frozen_parameter_does_not_move(row):
    model, [batch] = CLASSES.make()
    model[2].bias.requires_grad_(False)
    frozen = model[2].bias.clone()
    row.make()(model, [batch], CLASSES.loss_fn)
    assert torch.equal(model[2].bias, frozen)
