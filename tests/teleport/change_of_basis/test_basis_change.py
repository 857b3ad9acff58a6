"""A change of basis as a group element, on quivers written down by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.teleported import Teleported
from teleport._quiver.quiver import Freedom
from tests.teleport.quivers import random_tau, stack, stack_quiver

WIDTHS = st.lists(st.integers(1, 6), min_size=2, max_size=5)


def values(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def changed(*widths: int, positive: bool = True) -> tuple[nn.Module, BasisChange]:
    """A ReLU stack and a change of its basis."""
    model = stack(*widths)
    quiver = stack_quiver(model, F.relu, Freedom.POSITIVE if positive else Freedom.NONZERO)
    return model, BasisChange(quiver, random_tau(quiver, negative=not positive))


@settings(deadline=None, max_examples=50, derandomize=True)
@given(WIDTHS, st.booleans(), st.integers(0, 2**16))
def test_the_function_stays_and_the_gradient_is_divided(widths, positive, seed):
    """Theorem 5.1: where ``W' = f W``, ``dW' = dW / f``; written out by rows and columns here."""
    torch.manual_seed(seed)
    model, change = changed(*widths, positive=positive)
    x, y = torch.randn(5, widths[0]).double(), torch.randn(5, widths[-1]).double()
    plain = copy.deepcopy(model)
    moved = change.apply(model)
    for each in (plain, moved):
        F.mse_loss(each(x), y).backward()
    torch.testing.assert_close(moved(x), plain(x), rtol=1e-12, atol=1e-13)
    columns, count = torch.ones(widths[0]).double(), 1
    for number in range(len(widths) - 1):
        before, after = plain[2 * number], model[2 * number]
        last = number == len(widths) - 2
        rows = torch.ones(widths[-1]).double() if last else change.tau[count : count + widths[number + 1]]
        count += len(rows)
        for old, new, factor in (
            (before.weight, after.weight, rows[:, None] / columns),
            (before.bias, after.bias, rows),
        ):
            torch.testing.assert_close(new.detach(), old.detach() * factor, rtol=1e-13, atol=0)
            torch.testing.assert_close(new.grad, old.grad / factor, rtol=1e-9, atol=1e-13)
        columns = rows


def test_parameters_keep_their_identity_and_positive_factors_their_model():
    model, change = changed(5, 7, 6, 3)
    identities = [(id(parameter), parameter.data_ptr()) for parameter in model.parameters()]
    keys = list(model.state_dict())
    assert change.apply(model) is model
    assert [(id(parameter), parameter.data_ptr()) for parameter in model.parameters()] == identities
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("positive", [True, False])
def test_the_inverse_undoes_it(positive):
    model, change = changed(5, 7, 6, 3, positive=positive)
    start = values(model)
    moved = change.apply(model)
    assert any(not torch.allclose(old, new) for old, new in zip(start, values(model), strict=True))
    back = change.inverse().apply(moved)
    torch.testing.assert_close(values(model), start, rtol=1e-14, atol=0)
    assert not positive or back is model
    x = torch.randn(5, 5).double()
    torch.testing.assert_close(back(x), model(x), rtol=1e-13, atol=1e-15)  # no activation is changed any more


@pytest.mark.parametrize("positive", [True, False])
def test_a_composition_does_what_both_do(positive):
    model, first = changed(5, 7, 6, 3, positive=positive)
    second = BasisChange(first.quiver, random_tau(first.quiver, negative=not positive))
    other, x = copy.deepcopy(model), torch.randn(5, 5).double()
    before = model(x).detach()
    one_by_one = second.apply(first.apply(model))
    at_once = second.compose(first).apply(other)
    torch.testing.assert_close(values(one_by_one), values(at_once), rtol=1e-13, atol=0)
    for moved in (one_by_one, at_once):
        torch.testing.assert_close(moved(x), before, rtol=1e-12, atol=1e-13)
    assert not isinstance(getattr(one_by_one, "module", None), Teleported)
    torch.testing.assert_close(first.compose(first.inverse()).tau, torch.ones_like(first.tau), rtol=1e-15, atol=0)


def test_inverse_classes_stay_inverse():
    """A key's factor is completed to the inverse of its query's."""
    model = stack(4, 3, 3, 2)
    quiver = stack_quiver(model)
    quiver.inverse = torch.tensor([-1, 4, 5, 6, 1, 2, 3])
    tau = random_tau(quiver)
    torch.testing.assert_close(tau[4:], 1 / tau[1:4], rtol=1e-15, atol=0)


def test_the_group_is_that_of_the_parameters_that_move():
    model, change = changed(5, 7, 3)
    start = {parameter: parameter.detach().clone() for parameter in model.parameters()}
    change.apply(model)
    assert set(change.group) == {parameter for parameter, old in start.items() if not torch.equal(parameter, old)}
    assert len(change.group) == 3  # not the last bias
    for parameter, factors in change.group.items():
        torch.testing.assert_close(parameter.detach(), start[parameter] * factors, rtol=1e-14, atol=0)


def test_the_distance_is_the_one_that_it_would_go():
    model, change = changed(5, 7, 6, 3)
    start, expected = values(model), change.distance(model)
    assert values(model)[0].equal(start[0])
    change.apply(model)
    gone = sum(float((new - old).square().sum()) for new, old in zip(values(model), start, strict=True)) ** 0.5
    assert expected == pytest.approx(gone, rel=1e-12)


def test_another_model_or_quiver_is_refused():
    _, change = changed(5, 7, 6, 3)
    start = values(smaller := stack(5, 7, 6, 4))
    with pytest.raises(ValueError, match=r"of another model: its '4\.weight' has shape \[3, 6\], this one's \[4, 6\]"):
        change.apply(smaller)
    assert all(torch.equal(old, new) for old, new in zip(start, values(smaller), strict=True))
    with pytest.raises(ValueError, match=r"of another model: this one has no module '4'"):
        change.apply(stack(5, 7, 6))
    with pytest.raises(ValueError, match="of one quiver"):
        change.compose(changed(5, 4, 3)[1])
