"""Runs that start from a file of weights, and the sentences for files that are none of the model's."""

from __future__ import annotations

import logging

import pytest
import torch

from experiments.configuration.model_config import MLPConfig, TorchvisionConfig
from experiments.data.compat import torchvision
from experiments.errors import UserError
from experiments.models.registry import build_model
from experiments.models.weights import with_weights
from experiments.run.make_run import make_run
from experiments.run.runs import load_table
from experiments.tasks import Spec
from teleport import ChangeOfBasis, Teleported
from tests.experiments.small import small

SPEC = Spec("image", (1, 4, 4), 3)
MLP = {"name": "mlp", "widths": [6], "activation": "tanh"}


def mlp(**keys):
    return build_model(MLPConfig(**MLP, **keys), SPEC)


def same(model, other):
    pairs = zip(model.state_dict().items(), other.state_dict().items(), strict=True)
    return all(key == name and torch.equal(value, others) for (key, value), (name, others) in pairs)


def test_a_model_starts_from_its_weights(tmp_path):
    saved = mlp()
    torch.save(saved.state_dict(), tmp_path / "own.pt")
    torch.manual_seed(7)
    plain = mlp()
    state = torch.get_rng_state()
    torch.manual_seed(7)
    loaded = mlp(weights=str(tmp_path / "own.pt"))
    assert same(loaded, saved)
    assert not same(plain, saved)
    assert torch.equal(torch.get_rng_state(), state)  # what the run draws next is what it draws without


def test_torchvisions_weights_as_they_are_published(tmp_path):
    """Its files of before PyTorch 0.4.1 lack the counters of batch norms and the versions of modules."""
    theirs = torchvision().models.resnet18(num_classes=5)
    state = {key: value for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "resnet18.pth")
    keys = {"name": "torchvision", "arch": "resnet18", "weights": str(tmp_path / "resnet18.pth")}
    assert same(build_model(TorchvisionConfig(**keys), Spec("image", (3, 32, 32), 5)), theirs)


def test_a_model_with_teleported_activations_comes_back_as_one(tmp_path):
    model, x = mlp().double(), torch.randn(5, 1, 4, 4)
    moved = ChangeOfBasis(0.5, "inter", activations="teleport")(model, [x.double()]).model
    torch.save(moved.float().state_dict(), tmp_path / "moved.pt")
    loaded = mlp(weights=str(tmp_path / "moved.pt"))
    assert isinstance(loaded, Teleported)
    assert torch.equal(loaded(x), moved(x))


def test_a_run_goes_on_from_what_another_ended_with(tmp_path):
    first = make_run(small(tmp_path))
    second = make_run(small(tmp_path, f"model.weights={first / 'model.pt'}"))
    losses = ["train_loss", "test_loss", "test_metric"]
    assert load_table(second, "curve")[losses].iloc[0].tolist() == load_table(first, "curve")[losses].iloc[-1].tolist()
    assert load_table(second, "curve").train_loss.iloc[-1] < load_table(second, "curve").train_loss.iloc[0]
    assert first != second


WRONG = {
    "nothing": (lambda state: None, r"is not there; it takes a file of torch\.save"),
    "bytes": (lambda state: b"PK\x03\x04 no archive", "is damaged: it is not a whole archive .*; it takes a file"),
    "a module": (lambda state: mlp(), "holds more than tensors and plain values; it takes a file"),
    "a list": (lambda state: [1, 2], "holds no state dict; it takes a file"),
    "a checkpoint": (
        lambda state: {"model": state, "epoch": 3},
        "holds no state dict, but one below 'model'; save that alone; it takes a file",
    ),
    "less": (lambda state: dict(list(state.items())[1:]), "lacks 'linear1.weight', which the model has"),
    "more": (lambda state: state | {"extra": torch.ones(1)}, "has 'extra', which the model lacks"),
    "others": (
        lambda state: {f"net.{key}": value for key, value in state.items()},
        "lacks 'linear1.weight' and 3 more, which the model has",
    ),
    "not finite": (
        lambda state: state | {"head.bias": torch.tensor([1.0, float("nan"), 2.0])},
        r"has 1 of 3 values of 'head\.bias' that are not finite",
    ),
    "complex": (
        lambda state: state | {"head.bias": torch.ones(3) * 1j},
        r"has 'head\.bias' of type complex64, where the model has float32",
    ),
    "too large": (
        lambda state: state | {"head.bias": torch.full((3,), 1e300, dtype=torch.float64)},
        r"has values of 'head\.bias' that are too large for the model's float32",
    ),
    "other shapes": (
        lambda state: state | {"head.bias": torch.ones(9)},
        r"has 'head\.bias' of shape \[9\], where the model has \[3\]",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_not_the_models_is_one_sentence(tmp_path, case):
    make, sentence = WRONG[case]
    path, content = tmp_path / "weights.pt", make(dict(mlp().state_dict()))
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=sentence) as caught:
        mlp(weights=str(path))
    assert str(caught.value).startswith(f"model.weights={path} ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "sentence"), [("none_such.pt", "cannot be read: No such file"), ("x.pt", "lacks 'lin")]
)
def test_a_run_tells_before_anything_else(tmp_path, caplog, name, sentence):
    caplog.set_level(logging.INFO, "experiments")
    torch.save({"weight": torch.ones(2)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=sentence):
        make_run(small(tmp_path / "runs", f"model.weights={tmp_path / name}"))
    assert caplog.messages == []
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_the_prefix_of_a_wrapper_is_left_out(tmp_path, caplog, prefix):
    caplog.set_level(logging.INFO, "experiments")
    saved, path = mlp(), tmp_path / "wrapped.pt"
    torch.save({prefix + key: value for key, value in saved.state_dict().items()}, path)
    assert same(mlp(weights=str(path)), saved)
    assert caplog.messages == [f"note: model.weights={path}: the prefix '{prefix}' of its names is left out"]


@pytest.mark.parametrize("case", ["lacks", "is not finite"])
def test_a_model_that_was_refused_is_as_it_was(tmp_path, case):
    state = mlp().state_dict()
    torch.save(
        dict(list(state.items())[:-1]) if case == "lacks" else state | {"head.bias": torch.full((3,), float("inf"))},
        tmp_path / "w.pt",
    )
    model = mlp()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError):
        with_weights(model, tmp_path / "w.pt")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_file_without_a_checksum_is_told(tmp_path, caplog):
    caplog.set_level(logging.INFO, "experiments")
    saved, path = mlp(), tmp_path / "old.pt"
    torch.save(saved.state_dict(), path, _use_new_zipfile_serialization=False)
    assert same(mlp(weights=str(path)), saved)
    assert caplog.messages == [f"note: model.weights={path} has no checksum, so that damage to it would not show"]
