"""Caches that a model keeps are cleared, models that go on from earlier evaluations are refused, constants stay."""

from __future__ import annotations

import pytest
import torch

from teleport import ChangeOfBasis, LevelSet, NullSpace, Rescaling, UnsupportedModel, preview
from tests.teleport.caching import CACHES, Appending, Constants, Once, Writing, fresh, loss_fn

METHODS = {
    "change of basis": lambda model, batch: ChangeOfBasis(0.5)(model, [batch], loss_fn),
    "change of basis by outputs": lambda model, batch: ChangeOfBasis(0.5)(model, [batch]),
    "rescaling": lambda model, batch: Rescaling(relative_cap=2.0)(model, [batch], loss_fn),
    "level set": lambda model, batch: LevelSet(steps=3, relative_cap=2.0)(model, [batch], loss_fn),
    "null space": lambda model, batch: NullSpace(steps=3, relative_cap=2.0)(model, [batch], loss_fn),
}

every_method = pytest.mark.parametrize("method", METHODS)


def batch_of(rows=4):
    torch.manual_seed(1)
    return torch.randn(rows, 5).double(), torch.randn(rows, 3).double()


@every_method
@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("kind", CACHES)
def test_a_cache_is_not_stale_after_a_teleport(kind, filled, method):
    model, batch = kind(), batch_of()
    if filled:
        with torch.no_grad():
            model(batch[0])
    before, loss = fresh(kind, model)(batch[0]).detach(), float(loss_fn(fresh(kind, model), batch).detach())
    report = METHODS[method](model, batch)
    assert report.accepted
    assert not report.no_op
    outputs, of_fresh = model(batch[0]).detach(), fresh(kind, model)(batch[0]).detach()
    torch.testing.assert_close(outputs, of_fresh, rtol=1e-10, atol=1e-12)
    if method in ("change of basis", "change of basis by outputs", "rescaling"):
        torch.testing.assert_close(outputs, before, rtol=1e-10, atol=1e-12)
    else:
        assert float(loss_fn(model, batch).detach()) <= loss + 1e-3 * max(1.0, loss)


@pytest.mark.parametrize("kind", CACHES)
def test_after_an_exception_a_preview_and_a_teleport_that_moves_nothing_the_outputs_are_as_before(kind):
    model, batch = kind(), batch_of()
    before = model(batch[0]).detach()

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ChangeOfBasis()(model, [batch], loss_fn, callback=stop)
    assert torch.equal(model(batch[0]), before)
    assert not preview(ChangeOfBasis(), model, [batch], loss_fn).no_op
    assert torch.equal(model(batch[0]), before)
    assert ChangeOfBasis()(model, [batch], loss_fn, callback=lambda progress: True).no_op
    assert torch.equal(model(batch[0]), before)


@every_method
@pytest.mark.parametrize(("kind", "name"), [(Appending, "keys"), (Writing, "keys"), (Once, "held")])
def test_a_model_that_goes_on_from_earlier_evaluations_is_refused_by_name(kind, name, method):
    model, batch = kind(), batch_of()
    if kind is not Once:
        model(torch.randn(2, 5).double())
    start = [each.detach().clone() for each in model.parameters()]
    attributes = {key: value for key, value in vars(model).items() if key in ("keys", "held", "length")}
    with pytest.raises(UnsupportedModel, match=f"'{name}' keeps tensors of earlier evaluations"):
        METHODS[method](model, batch)
    assert all(torch.equal(each, old) for each, old in zip(model.parameters(), start, strict=True))
    assert all(vars(model)[key] is value for key, value in attributes.items())


@every_method
@pytest.mark.parametrize("kind", [Appending, Writing])
def test_before_its_first_evaluation_such_a_model_is_one_function(kind, method):
    model, batch = kind(), batch_of()
    held = vars(model).get("keys")
    report = METHODS[method](model, batch)
    assert report.accepted
    assert vars(model).get("keys") is held
    assert held is None or not bool(held.any())
    assert vars(model).get("length", 0) == 0


@every_method
def test_constants_records_and_counters_are_as_before(method):
    model, batch = Constants(), batch_of()
    before = model(batch[0]).detach()
    held = {name: vars(model)[name] for name in ("scale", "calls", "record", "optional")}
    assert not METHODS[method](model, batch).no_op
    assert all(vars(model)[name] is value for name, value in held.items())
    if "level" not in method and "null" not in method:
        torch.testing.assert_close(model(batch[0]).detach(), before, rtol=1e-10, atol=1e-12)
