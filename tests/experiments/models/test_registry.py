"""Every pair of a model and a kind of data either works or ends in one sentence."""

from __future__ import annotations

import pytest
import torch
from specs import SPECS, batch, output_shape, spec_for

from experiments.configuration.model_config import (
    CNNConfig,
    CustomModel,
    MLPConfig,
    ModelConfig,
    NetworkConfig,
    PointConfig,
    ResNetConfig,
    TorchvisionConfig,
    TransformerConfig,
)
from experiments.errors import UserError
from experiments.models.registry import MODELS, build_model

CONFIGS: dict[str, ModelConfig] = {
    "mlp": MLPConfig(name="mlp", widths=[8, 6]),
    "cnn": CNNConfig(name="cnn", channels=[4, 5, 6]),
    "resnet": ResNetConfig(name="resnet", channels=[4, 8], stem_stride=2),
    "vgg16": NetworkConfig(name="vgg16", width=0.125),
    "resnet18": NetworkConfig(name="resnet18", width=0.125),
    "densenet121": NetworkConfig(name="densenet121", width=0.125),
    "torchvision": TorchvisionConfig(name="torchvision", arch="shufflenet_v2_x0_5"),
    "transformer": TransformerConfig(name="transformer", heads=2, head_dim=4, layers=2),
    "point": PointConfig(name="point", start=[1.0, -2.0]),
    "custom": CustomModel(name="custom", factory="torch.nn:Module"),
}
FITTING = {
    "mlp": {"image", "sequence", "series"},
    "cnn": {"image"},
    "resnet": {"image"},
    "vgg16": {"image"},
    "resnet18": {"image"},
    "densenet121": {"image"},
    "torchvision": {"image"},
    "transformer": {"sequence", "series", "text"},
    "point": {"function"},
}
PAIRS = [(name, kind) for name in FITTING for kind in SPECS]


def test_all_models_are_tested():
    assert set(CONFIGS) == set(MODELS)


@pytest.mark.parametrize(("name", "kind"), [pair for pair in PAIRS if pair[1] in FITTING[pair[0]]])
def test_a_fitting_model_follows_the_spec_and_every_parameter_gets_a_gradient(name, kind):
    spec = spec_for(name, kind)
    model = build_model(CONFIGS[name], spec)
    outputs = model(batch(spec))
    assert outputs.shape == output_shape(spec)
    outputs.square().sum().backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []
    # what is provably zero: a key's bias shifts all scores of a query alike
    flat = [key for key, parameter in model.named_parameters() if parameter.grad.abs().max() == 0]
    assert all(key.endswith("key.bias") for key in flat)


@pytest.mark.parametrize(("name", "kind"), [pair for pair in PAIRS if pair[1] not in FITTING[pair[0]]])
def test_a_misfit_ends_in_one_sentence_that_names_what_fits(name, kind):
    with pytest.raises(UserError) as caught:
        build_model(CONFIGS[name], SPECS[kind], "my_data")
    message = str(caught.value)
    assert message.startswith(f"model '{name}' takes ")
    assert "data 'my_data' gives " in message
    fitting = message.split("fitting models: ")[1].split(" (")[0].split(", ")
    assert set(fitting) == {other for other, kinds in FITTING.items() if kind in kinds}
    assert ("data=smnist" in message) == ((name, kind) == ("transformer", "image"))


def test_the_sentence_of_a_misfit():
    with pytest.raises(UserError) as caught:
        build_model(CONFIGS["cnn"], SPECS["text"], "ptb")
    assert str(caught.value) == "model 'cnn' takes images, but data 'ptb' gives text; fitting models: transformer"
    with pytest.raises(UserError) as caught:
        build_model(CONFIGS["mlp"], SPECS["text"])
    assert str(caught.value) == (
        "model 'mlp' takes images, sequences and series, but the data gives text; fitting models: transformer"
    )


def test_an_unknown_model_and_keys_of_another():
    with pytest.raises(UserError, match=r"unknown model 'nlp' \(did you mean 'mlp'\?\)"):
        build_model(ModelConfig(name="nlp"), SPECS["image"])
    with pytest.raises(UserError, match="choose model=cnn"):
        build_model(MLPConfig(name="cnn", widths=[3]), SPECS["image"])


@pytest.mark.parametrize("init", ["default", "kaiming", "xavier", "gaussian"])
@pytest.mark.parametrize("name", [name for name in FITTING if name != "point"])  # which is not random
def test_the_global_seed_makes_the_model(name, init):
    kind = next(kind for kind in SPECS if kind in FITTING[name])
    config = type(CONFIGS[name])(**{**vars(CONFIGS[name]), "init": init})
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(build_model(config, spec_for(name, kind)).state_dict())
    first, again, other = states
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
