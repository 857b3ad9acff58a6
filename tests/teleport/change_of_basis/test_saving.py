"""Teleported models through a file."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn

from teleport import load, save
from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.teleported import Teleported
from teleport._files import tensor_file
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


def test_the_state_of_a_change_is_all_of_it():
    _, _, change = changed(True)
    change.quiver.reasons["0.weight"] = "a reason"
    found = BasisChange.from_state_dict(change.state_dict(), stack(5, 7, 6, 3, activation=nn.Tanh))
    assert torch.equal(found.tau, change.tau)
    one, other = found.quiver, change.quiver
    assert one.calls == other.calls == {function_name(torch.tanh): 2}
    assert (one.reasons, one.kinds) == (other.reasons, other.kinds)
    assert torch.equal(one.freedom, other.freedom)
    assert torch.equal(one.inverse, other.inverse)
    for name, classes in other.channel_classes.items():
        assert torch.equal(one.channel_classes[name], classes)
    for site, same in zip(one.sites, other.sites, strict=True):
        assert (site.call, site.function, site.homogeneous) == (same.call, same.function, same.homogeneous)
        assert torch.equal(site.classes, same.classes)


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


def fresh() -> nn.Module:
    return stack(5, 7, 6, 3, activation=nn.Tanh)


def untouched(path, model: nn.Module) -> str:
    """The sentence with which a file is refused; the model must stay as it is."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"model\.pt") as caught:
        load(path, model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    return str(caught.value)


def test_a_damaged_file_is_refused_or_gives_what_was_saved(tmp_path):
    _, moved, change = changed(True)
    path, draw, x = tmp_path / "model.pt", random.Random(1), torch.randn(4, 5).double()
    save(moved, path, change)
    content, expected, refused = path.read_bytes(), moved(x), 0
    for _ in range(60):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            loaded, again = load(path, fresh())
        except ValueError:
            refused += 1
            untouched(path, fresh())
        else:  # the bit is one of the checksum's name, say
            assert torch.equal(loaded(x), expected)
            assert torch.equal(again.tau, change.tau)
    assert refused > 50


WRONG = {
    "a list": lambda state, change: [state, change],
    "no state": lambda state, change: {"model": 3, "change": change},
    "a state of tensors below": lambda state, change: {"model": {"a": state}, "change": change},
    "less": lambda state, change: {"model": dict(list(state.items())[:-1]), "change": change},
    "complex": lambda state, change: {"model": state | {"module.0.bias": torch.ones(7) * 1j}, "change": change},
    "fractions": lambda state, change: {"model": state | {"module.0.bias": "text"}, "change": change},
    "shape": lambda state, change: {"model": state | {"module.4.weight": torch.ones(3, 7)}, "change": change},
    "no activations": lambda state, change: {
        "model": state | {"_extra_state": {"activations": 3, "calls": {}}},
        "change": change,
    },
    "an activation of another kind": lambda state, change: {
        "model": state | {"_extra_state": {"activations": [{"function": 1, "call": 0, "tau": 2.0}], "calls": {}}},
        "change": change,
    },
    "no change": lambda state, change: {"model": state, "change": [1]},
    "a factor of 0": lambda state, change: {"model": state, "change": change | {"tau": 0 * change["tau"]}},
    "other classes": lambda state, change: {"model": state, "change": change | {"freedom": change["freedom"][1:]}},
    "classes beyond": lambda state, change: {"model": state, "change": change | {"units": {"0": torch.tensor([99])}}},
    "a function of nobody": lambda state, change: {
        "model": state,
        "change": change | {"sites": [change["sites"][0] | {"function": "os.system"}]},
    },
    "names of others": lambda state, change: {
        "model": state,
        "change": change | {"scaled": {"head.weight": change["scaled"]["0.weight"]}},
    },
}


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("case", WRONG)
def test_a_whole_file_of_another_structure_is_one_sentence(tmp_path, case, checked):
    _, moved, change = changed(True)
    path = tmp_path / "model.pt"
    content = WRONG[case](dict(moved.state_dict()), change.state_dict())
    tensor_file.write(path, content) if checked else torch.save(content, path)
    sentence = untouched(path, fresh())
    assert sentence.startswith(str(path))
    assert "\n" not in sentence


def test_a_file_of_an_earlier_version_is_read(tmp_path):
    _, moved, change = changed(True)
    content, x = {"model": moved.state_dict(), "change": change.state_dict()}, torch.randn(4, 5).double()
    torch.save(content, tmp_path / "zip.pt")
    assert torch.equal(load(tmp_path / "zip.pt", fresh())[0](x), moved(x))
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.warns(UserWarning, match=r"old\.pt has no checksum"):
        loaded, _ = load(tmp_path / "old.pt", fresh())
    assert torch.equal(loaded(x), moved(x))


def test_into_a_compiled_or_wrapped_model(tmp_path):
    model = stack(5, 7, 3)
    save(nn.DataParallel(model), tmp_path / "wrapped.pt")
    assert torch.equal(load(tmp_path / "wrapped.pt", stack(5, 7, 3))[0][0].weight, model[0].weight)
    save(model, tmp_path / "plain.pt")
    wrapped, _ = load(tmp_path / "plain.pt", nn.DataParallel(stack(5, 7, 3)))
    assert torch.equal(wrapped.module[0].weight, model[0].weight)


def test_a_model_whose_loading_fails_halfway_is_as_it_was(tmp_path):
    class Fails(nn.Linear):
        def _load_from_state_dict(self, *args, **kwargs):
            super()._load_from_state_dict(*args, **kwargs)
            raise RuntimeError("of its own")

    save(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), tmp_path / "model.pt")
    assert "of its own" in untouched(tmp_path / "model.pt", nn.Sequential(nn.Linear(3, 3), Fails(3, 3)))


def test_complex_weights_keep_their_imaginary_part(tmp_path):
    model = nn.Linear(3, 2, dtype=torch.complex64)
    save(model, tmp_path / "model.pt")
    loaded, _ = load(tmp_path / "model.pt", nn.Linear(3, 2, dtype=torch.complex64))
    assert torch.equal(loaded.weight, model.weight)
    assert "complex64" in untouched(tmp_path / "model.pt", nn.Linear(3, 2))
