"""The guarantees of every teleport method, on the same problems. A new method needs a row in ``ROWS``."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import teleport
from teleport import (
    ChangeOfBasis,
    LevelSet,
    NullSpace,
    Orbit,
    Progress,
    PseudoTeleport,
    RandomNullSpace,
    Rescaling,
    Stopped,
    Symmetry,
    UnsupportedModel,
)

Teleporter = Callable[..., teleport.TeleportReport]
LossFn = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class Row:
    """A method with settings with which it moves on these problems, and its guarantees.

    Attributes:
        make: the method, guarded and with ``relative_cap`` where it has such arguments.
        keeps: how far a batch's loss may move, relative to ``max(1, |loss|)``, in double precision.
        may_fall: whether the loss may fall by more than that.
        raises_norm: whether the gradient norm does not fall.
        relative_cap: what the gradient norm must stay below, relative to the one before.
        guarded: whether it promises to keep the loss at all.
    """

    name: str
    make: Callable[[], Teleporter]
    keeps: float
    may_fall: bool = False
    raises_norm: bool = True
    relative_cap: float = math.inf
    guarded: bool = True

    def __str__(self) -> str:
        return self.name


def scale_units(theta: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the first hidden layer's units scaled by ``exp(theta)``; a leaky ReLU preserves the factors."""
    factors = theta.exp()
    return {
        "0.weight": factors[:, None] * weights["0.weight"],
        "0.bias": factors * weights["0.bias"],
        "2.weight": weights["2.weight"] / factors,
    }


def _inter() -> Teleporter:
    return ChangeOfBasis(0.9, "inter", activations="teleport")


ROWS = [
    Row("nullspace", lambda: NullSpace(lr=1.0, relative_cap=3.0), keeps=1e-10, relative_cap=3.0),
    Row("random", lambda: RandomNullSpace(relative_cap=3.0), keeps=1e-10, raises_norm=False, relative_cap=3.0),
    Row("levelset", lambda: LevelSet(relative_cap=3.0), keeps=1e-3, may_fall=True, relative_cap=3.0),
    Row("rescaling", lambda: Rescaling(relative_cap=3.0), keeps=1e-10, relative_cap=3.0),
    Row("change of basis", ChangeOfBasis, keeps=1e-10, raises_norm=False),
    Row("change of basis, teleported", _inter, keeps=1e-10, raises_norm=False),
    Row("pseudo-teleportation", PseudoTeleport, keeps=math.inf, raises_norm=False, guarded=False),
    Row("symmetry", lambda: Symmetry("corrected", lr=0.01, step="cap", relative_cap=3.0, guard="transaction"), 1e-8),
    Row("orbit", lambda: Orbit(scale_units, shape=(24,), relative_cap=3.0), keeps=1e-10, relative_cap=3.0),
]
"""At least one row per method."""


@dataclass(frozen=True)
class Problem:
    """A LeakyReLU network whose layers are wider than a batch, with a loss."""

    name: str
    loss: Callable[[Tensor, Tensor], Tensor]
    targets: Callable[[int], Tensor]

    def __str__(self) -> str:
        return self.name

    def loss_fn(self, model: nn.Module, batch: Any) -> Tensor:
        return self.loss(model(batch[0]), batch[1])

    def make(self, dtype: torch.dtype = torch.float64, batches: int = 1) -> tuple[nn.Module, list[Any]]:
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Linear(6, 24), nn.LeakyReLU(0.1), nn.Linear(24, 24), nn.LeakyReLU(0.1), nn.Linear(24, 3)
        ).to(dtype)
        drawn = [(torch.randn(5, 6).to(dtype), self.targets(5)) for _ in range(batches)]
        return model, [(x, y.to(dtype) if y.is_floating_point() else y) for x, y in drawn]


PROBLEMS = [
    Problem("classes", F.cross_entropy, lambda n: torch.arange(n) % 3),
    Problem("regression", F.mse_loss, lambda n: torch.linspace(-1, 1, 3 * n).reshape(n, 3)),
]
CLASSES = PROBLEMS[0]

on_every_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=str)
every_method = pytest.mark.parametrize("row", ROWS, ids=str)


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def unchanged(model: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def after_it(model: nn.Module, report: teleport.TeleportReport) -> nn.Module:
    """The model to use after the teleport."""
    return report.model if isinstance(report, teleport.ChangeOfBasisReport) else model


def module_of(name: str) -> str:
    """The name without its last part: the report of a weight includes the bias that moves with it."""
    return name.removesuffix(".weight").removesuffix(".bias")


def gradient_norm(model: nn.Module, problem: Problem, batch: Any) -> float:
    gradients = torch.autograd.grad(problem.loss_fn(model, batch), list(model.parameters()))
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))


def test_every_exported_method_has_a_row():
    def is_method(thing: Any) -> bool:
        calls = inspect.isclass(thing) and "__call__" in vars(thing)
        return (
            calls
            and thing is not teleport.Teleporter
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
@pytest.mark.parametrize("call", [1, 2, 4, 7])
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
    "method", [NullSpace(), LevelSet(), Symmetry("2024")], ids=lambda method: type(method).__name__
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


@every_method
def test_the_callback_is_called_for_each_step_on_each_batch(row):
    model, batches = CLASSES.make(batches=2)
    plain = copy.deepcopy(model)
    told: list[Progress] = []
    report = row.make()(model, batches, CLASSES.loss_fn, callback=told.append)
    without = row.make()(plain, batches, CLASSES.loss_fn)
    assert unchanged(after_it(plain, without), values(after_it(model, report)))  # a callback changes no number
    assert {each.method for each in told} == {report.method}
    assert {each.batches for each in told} == {2}
    for number, batch in enumerate(report.batches):
        of_batch = [each for each in told if each.batch == number]
        assert [each.step for each in of_batch] == list(range(batch.steps + 1))
        assert all(each.step <= each.steps for each in of_batch)
        assert (of_batch[0].loss, of_batch[0].gradient_norm) == (batch.loss_before, batch.gradient_norm_before)
        assert of_batch[-1].gradient_norm == pytest.approx(batch.gradient_norm_after)
        if batch.trace:
            assert [each.gradient_norm for each in of_batch] == pytest.approx([s.gradient_norm for s in batch.trace])


@every_method
def test_the_callback_ends_the_event_after_the_step(row):
    model, batches = CLASSES.make(batches=3)
    start, [loss, *_] = values(model), [float(CLASSES.loss_fn(model, batch).detach()) for batch in batches]
    report = row.make()(model, batches, CLASSES.loss_fn, callback=lambda progress: progress.step == 1)
    together = isinstance(row.make(), ChangeOfBasis | PseudoTeleport)
    assert len(report.batches) == (3 if together else 1)
    assert {batch.stopped for batch in report.batches} == {Stopped.CALLBACK}
    assert [batch.steps for batch in report.batches] == [1] * len(report.batches)
    assert report.batches[0].accepted
    assert not unchanged(model, start)
    after = after_it(model, report)
    losses = [float(CLASSES.loss_fn(after, batch).detach()) for batch in batches]
    assert report.loss_after == pytest.approx(sum(losses) / 3)
    assert losses[0] - loss <= max(row.keeps, 1e-12) * max(1.0, abs(loss))


@every_method
def test_the_callback_may_end_the_event_before_the_first_step(row):
    model, batches = CLASSES.make(batches=2)
    start = values(model)
    report = row.make()(model, batches, CLASSES.loss_fn, callback=lambda progress: True)
    assert report.no_op
    assert unchanged(model, start)
    assert {batch.stopped for batch in report.batches} == {"stopped by the callback"}
    assert report.loss_after == pytest.approx(report.loss_before, rel=1e-12)
    assert report.gradient_norm_after == report.gradient_norm_before


@every_method
def test_only_true_of_a_callback_ends_the_event(row):
    model, batches = CLASSES.make(batches=2)
    report = row.make()(model, batches, CLASSES.loss_fn, callback=lambda progress: 1)
    assert Stopped.CALLBACK not in {batch.stopped for batch in report.batches}


@every_method
def test_an_exception_of_the_callback_restores_all_parameters(row):
    model, batches = CLASSES.make(batches=2)
    start = values(model)

    def interrupt(progress: Progress) -> None:
        if (progress.batch, progress.step) == (1, 1):
            assert not unchanged(model, start)
            raise KeyboardInterrupt("enough")

    with pytest.raises(KeyboardInterrupt, match="enough"):
        row.make()(model, batches, CLASSES.loss_fn, callback=interrupt)
    assert unchanged(model, start)


@every_method
def test_a_move_that_the_callback_ended_is_guarded(row):
    """The loss is 1 higher at each evaluation, so every move violates the guard."""
    model, [batch] = CLASSES.make()
    start, calls = values(model), []

    def loss_fn(net: nn.Module, batch: Any) -> Tensor:
        calls.append(1)
        return CLASSES.loss_fn(net, batch) + len(calls)

    report = row.make()(model, [batch], loss_fn, callback=lambda progress: progress.step == 1)
    if row.guarded:
        assert unchanged(model, start)
        assert report.batches[0].stopped in (Stopped.ROLLED_BACK, Stopped.NO_ASCENT)


@every_method
def test_a_call_has_the_signature_of_the_contract(row):
    method = row.make()
    assert isinstance(method, teleport.Teleporter)
    contract = inspect.signature(teleport.Teleporter.__call__).parameters
    own = inspect.signature(type(method).__call__).parameters
    assert list(own)[:4] == ["self", "model", "batches", "loss_fn"]
    for name in ("generator", "callback"):
        assert (own[name].kind, own[name].default) == (contract[name].kind, contract[name].default)
        assert own[name].kind is inspect.Parameter.KEYWORD_ONLY


@every_method
def test_the_generator_determines_all_random_numbers(row):
    model, batches = CLASSES.make(batches=2)
    moved = []
    for seed in (1, 1, 2):
        net, source = copy.deepcopy(model), torch.Generator().manual_seed(seed)
        before = source.get_state()
        report = row.make()(net, batches, CLASSES.loss_fn, generator=source)
        moved.append((values(after_it(net, report)), torch.equal(source.get_state(), before)))
    (one, _), (same, _), (other, untouched) = moved
    assert all(torch.equal(one[name], same[name]) for name in one)
    draws = isinstance(row.make(), ChangeOfBasis | PseudoTeleport | RandomNullSpace)
    assert all(torch.equal(one[name], other[name]) for name in one) != draws
    assert untouched != draws


def test_statuses_equal_the_texts_in_tables():
    assert {str(status) for status in Stopped} == {
        *("steps done", "cap reached", "above cap", "no ascent", "not finite", "nothing moves", "stationary"),
        *("bound reached", "minimum reached", "rolled back", "stopped by the callback"),
    }
    assert Stopped("above cap") is Stopped.ABOVE_CAP


@every_method
def test_a_preview_reports_the_move_and_restores_all_state(row):
    model, batches = CLASSES.make(batches=2)
    model.register_buffer("held", torch.ones(3))
    model.train()
    start, buffers = values(model), [buffer.clone() for buffer in model.buffers()]
    method, random = row.make(), torch.random.get_rng_state()
    previewed = teleport.preview(method, model, batches, CLASSES.loss_fn)
    assert not previewed.no_op
    assert unchanged(model, start)
    assert all(torch.equal(one, other) for one, other in zip(model.buffers(), buffers, strict=True))
    assert torch.equal(torch.random.get_rng_state(), random)
    assert model.training
    report = method(model, batches, CLASSES.loss_fn)  # the previewed move, also of random methods
    assert [batch.trace for batch in report.batches] == [batch.trace for batch in previewed.batches]
    assert (report.loss_after, report.gradient_norm_after) == (previewed.loss_after, previewed.gradient_norm_after)


@every_method
def test_a_preview_takes_the_options_of_a_call(row):
    model, batches = CLASSES.make(batches=2)
    source, told = torch.Generator().manual_seed(4), []
    state = source.get_state()
    report = teleport.preview(row.make(), model, batches, CLASSES.loss_fn, generator=source, callback=told.append)
    assert torch.equal(source.get_state(), state)
    assert len(told) == sum(batch.steps + 1 for batch in report.batches)


@every_method
def test_a_preview_that_fails_restores_all_state(row):
    model, batches = CLASSES.make(batches=2)
    start = values(model)

    def fail(progress: Progress) -> None:
        if progress.step:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        teleport.preview(row.make(), model, batches, CLASSES.loss_fn, callback=fail)
    assert unchanged(model, start)


def test_a_preview_of_a_teleported_model_restores_its_activations():
    model, batches = CLASSES.make(batches=2)
    teleported = _inter()(model, batches, CLASSES.loss_fn).model
    outputs = teleported(batches[0][0])
    factors = [activation.tau.clone() for activation in teleported.activations]
    assert factors
    teleport.preview(_inter(), teleported, batches, CLASSES.loss_fn)
    assert torch.equal(teleported(batches[0][0]), outputs)
    assert all(torch.equal(one.tau, other) for one, other in zip(teleported.activations, factors, strict=True))


@every_method
def test_swapped_or_invalid_arguments_are_refused_in_one_sentence(row):
    model, batches = CLASSES.make()
    start, method = values(model), row.make()
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got list; a call is method\(model, batches"):
        method(batches, model, CLASSES.loss_fn)
    with pytest.raises(TypeError, match="batches must be a list or another iterable of batches, got method"):
        method(model, CLASSES.loss_fn, batches)
    with pytest.raises(TypeError, match="loss_fn must be a function of the model and a batch, got CrossEntropyLoss"):
        method(model, batches, nn.CrossEntropyLoss())
    with pytest.raises(TypeError, match=r"callback must be a function of a teleport\.Progress, got int"):
        method(model, batches, CLASSES.loss_fn, callback=3)
    assert unchanged(model, start)


@pytest.mark.parametrize("method", [RandomNullSpace(), ChangeOfBasis(), PseudoTeleport()])
def test_a_seed_is_no_generator(method):
    model, batches = CLASSES.make()
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got int"):
        method(model, batches, CLASSES.loss_fn, generator=3)


def test_a_generator_is_no_constraint():
    model, batches = CLASSES.make()
    with pytest.raises(TypeError, match="constraint must be a list or another iterable of batches, got Generator"):
        NullSpace()(model, batches, CLASSES.loss_fn, torch.Generator())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NullSpace(lr="1"), "lr must be a number, got '1'"),
        (lambda: LevelSet(steps=2.5), "steps must be a whole number, got 2.5"),
        (lambda: Rescaling(cap=True), "cap must be a number, got True"),
        (lambda: NullSpace(threshold=None), "threshold must be a number, got None"),
    ],
)
def test_settings_of_another_type_are_refused_in_a_sentence(make, message):
    with pytest.raises(TypeError, match=message):
        make()
