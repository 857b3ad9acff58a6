"""A model of the user's own."""

from __future__ import annotations

import sys

import pytest
import torch
from specs import SPECS, batch
from torch import nn

from experiments.configuration.model_config import CustomModel
from experiments.errors import UserError
from experiments.models.registry import build_model

SOURCE = """
import math
from torch import nn

number = 3

def linear(spec, bias=True):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(spec.input_shape), spec.outputs, bias=bias))

def no_module(spec):
    return [spec]

def broken(spec):
    return linear(spec, bias=undefined)
"""


@pytest.fixture
def own_models(tmp_path, monkeypatch):
    (tmp_path / "own_models.py").write_text(SOURCE)
    (tmp_path / "own_broken.py").write_text("import not_installed_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("own_models", "own_broken"):
        sys.modules.pop(name, None)


def build(factory: str, **options) -> nn.Module:
    return build_model(CustomModel(name="custom", factory=factory, options=options), SPECS["image"])


@pytest.mark.usefixtures("own_models")
def test_the_function_is_called_with_spec_and_options():
    model = build("own_models:linear", bias=False)
    assert model(batch(SPECS["image"])).shape == (3, 10)
    assert model[1].bias is None


@pytest.mark.usefixtures("own_models")
def test_init_applies_to_it():
    config = CustomModel(name="custom", factory="own_models:linear", init="gaussian", init_gain=0.02)
    layer = build_model(config, SPECS["image"])[1]
    assert not layer.bias.any()
    assert abs(layer.weight.std() / 0.02 - 1) < 0.1
    assert isinstance(layer.weight, torch.nn.Parameter)


@pytest.mark.usefixtures("own_models")
@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        ("own_models", {}, "takes package.module:function, got 'own_models'"),
        ("own_models.linear", {}, "takes package.module:function"),
        ("own_models:", {}, "takes package.module:function"),
        (":linear", {}, "takes package.module:function"),
        ("own models:linear", {}, "takes package.module:function"),
        ("own_model:linear", {}, "cannot import own_model .*No module named"),
        ("own_broken:linear", {}, "cannot import own_broken .*not_installed_anywhere"),
        ("own_models:lineer", {}, r"own_models has no 'lineer'; did you mean 'linear'\?"),
        ("own_models:number", {}, "must name a function, but number is of type int"),
        ("own_models:linear", {"width": 3}, "does not take .*unexpected keyword argument 'width'"),
        ("own_models:no_module", {}, r"must return a torch\.nn\.Module, but returned list"),
    ],
)
def test_what_can_go_wrong(factory, options, message):
    with pytest.raises(UserError, match=message) as caught:
        build(factory, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("own_models")
def test_an_error_of_the_function_itself_is_not_hidden():
    with pytest.raises(NameError, match="undefined"):
        build("own_models:broken")


def test_a_factory_that_ends_the_program_is_a_mistake():
    config = CustomModel(name="custom", factory="sys:exit")
    with pytest.raises(UserError, match=r"model\.factory=sys:exit ended the program with SystemExit"):
        build_model(config, SPECS["image"])
