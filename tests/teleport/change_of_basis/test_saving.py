"""Teleported models through a file."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from teleport import load, save
from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.teleported import Teleported
from teleport._tracing.functions import function_name
from tests.teleport.quivers import random_tau, stack, stack_quiver


def changed(negative: bool) -> tuple[nn.Module, nn.Module, BasisChange]:
    """A tanh or ReLU stack as it was, the same teleported, and by what."""
    activation, function = (nn.Tanh, torch.tanh) if negative else (nn.ReLU, None)
    model = stack(5, 7, 6, 3, activation=activation)
    plain = copy.deepcopy(model)
    quiver = stack_quiver(model, function)
    if function:
        quiver.calls = {function_name(function): 2}
    change = BasisChange(quiver, random_tau(quiver, negative=negative))
    return plain, change.apply(model), change


@pytest.mark.parametrize("negative", [False, True])
def test_what_is_loaded_computes_the_same_and_can_be_undone(tmp_path, negative):
    plain, moved, change = changed(negative)
    x = torch.randn(6, 5).double()
    save(moved, tmp_path / "model.pt", change)
    fresh = stack(5, 7, 6, 3, activation=nn.Tanh if negative else nn.ReLU)
    loaded, loaded_change = load(tmp_path / "model.pt", fresh)
    assert isinstance(loaded, Teleported) == negative
    assert negative or loaded is fresh
    assert torch.equal(loaded(x), moved(x))
    assert torch.equal(loaded_change.tau, change.tau)
    back = loaded_change.inverse().apply(loaded)
    torch.testing.assert_close(dict(fresh.named_parameters()), dict(plain.named_parameters()), rtol=1e-14, atol=0)
    torch.testing.assert_close(back(x), plain(x), rtol=1e-13, atol=1e-15)


def test_without_a_change_the_model_alone_is_kept(tmp_path):
    _, moved, _ = changed(True)
    save(moved, tmp_path / "model.pt")
    loaded, change = load(tmp_path / "model.pt", stack(5, 7, 6, 3, activation=nn.Tanh))
    assert change is None
    x = torch.randn(6, 5).double()
    assert torch.equal(loaded(x), moved(x))


def test_a_change_that_acted_twice_goes_on_where_it_was(tmp_path):
    plain, moved, change = changed(True)
    change.apply(moved)
    save(moved, tmp_path / "model.pt", change.compose(change))
    loaded, both = load(tmp_path / "model.pt", stack(5, 7, 6, 3, activation=nn.Tanh))
    x = torch.randn(6, 5).double()
    torch.testing.assert_close(both.inverse().apply(loaded)(x), plain(x), rtol=1e-12, atol=1e-14)


def test_other_files_and_models_are_refused(tmp_path):
    _, moved, change = changed(False)
    torch.save(moved.state_dict(), tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt is no file of teleport\.save"):
        load(tmp_path / "state.pt", stack(5, 7, 6, 3))
    with pytest.raises(ValueError, match=r"this one has no parameter '0\.weight'"):
        BasisChange.from_state_dict(change.state_dict(), nn.Linear(5, 3))


def test_the_former_order_of_the_arguments_works_with_a_warning(tmp_path):
    model = nn.Linear(3, 2)
    save(model, tmp_path / "new.pt")
    with pytest.warns(DeprecationWarning, match=r"teleport\.save\(model, path\)"):
        save(tmp_path / "old.pt", model)
    new, old = (load(tmp_path / name, nn.Linear(3, 2))[0] for name in ("new.pt", "old.pt"))
    assert torch.equal(new.weight, model.weight)
    assert torch.equal(old.weight, model.weight)
    with pytest.raises(TypeError, match="takes a module and a path, got dict and"):
        save(model.state_dict() and {}, tmp_path / "none.pt")
