"""The contract of a call for every method: callback, generator, preview, signature and refused arguments."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import teleport
from teleport import (
    Balance,
    ChangeOfBasis,
    LevelSet,
    NullSpace,
    Progress,
    PseudoTeleport,
    RandomNullSpace,
    Rescaling,
    Stopped,
)
from tests.teleport.methods import (
    CLASSES,
    after_it,
    every_method,
    inter_teleport,
    unchanged,
    values,
)


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
    together = isinstance(row.make(), Balance | ChangeOfBasis | PseudoTeleport)
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
    teleported = inter_teleport()(model, batches, CLASSES.loss_fn).model
    outputs = teleported(batches[0][0])
    factors = [activation.tau.clone() for activation in teleported.activations]
    assert factors
    teleport.preview(inter_teleport(), teleported, batches, CLASSES.loss_fn)
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


def test_an_interrupt_while_the_report_is_made_restores_the_parameters(monkeypatch):
    """The last moment of an event, after all evaluations."""
    from teleport._engine import run_event

    def interrupt(layers, named):
        raise KeyboardInterrupt

    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 3))
    start = [each.detach().clone() for each in model.parameters()]
    monkeypatch.setattr(run_event, "fill_sizes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        NullSpace(relative_cap=2.0)(
            model, [(torch.randn(4, 6), torch.arange(4) % 3)], lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1])
        )
    assert all(torch.equal(each, old) for each, old in zip(model.parameters(), start, strict=True))


METHODS = [
    *(teleport.NullSpace, teleport.RandomNullSpace, teleport.LevelSet, teleport.Rescaling, teleport.Symmetry),
    *(teleport.Orbit, teleport.Balance, teleport.ChangeOfBasis, teleport.PseudoTeleport),
]
WRONG: list[Any] = ["a", b"x", [object()], {}, object(), 1 + 2j, float("nan"), torch.tensor(1.0), None]
SENSIBLE = {("cap", None), ("relative_cap", None), ("objective_scale", None), ("inverse", None), ("memory", None)}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_a_setting_of_another_type_is_refused_by_name(method):
    required = {"action": lambda theta, weights: {}} if method is teleport.Orbit else {}
    for name in inspect.signature(method).parameters:
        for value in WRONG:
            if not (value is None and (name, None) in SENSIBLE):
                with pytest.raises((TypeError, ValueError), match=rf"\b{name}\b.* (must|is for) "):
                    method(**required | {name: value})
