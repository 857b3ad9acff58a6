"""The statistics of initial weights."""

from __future__ import annotations

import math

import pytest
import torch
from specs import SPECS, spec_for
from torch import nn

from experiments.configuration.model_config import CNNConfig, MLPConfig, NetworkConfig, ResNetConfig, TransformerConfig
from experiments.errors import UserError
from experiments.models.init import initialise
from experiments.models.registry import build_model


def fans(layer: nn.Module) -> tuple[int, int]:
    area = math.prod(layer.weight.shape[2:])
    return layer.weight.shape[1] * area, layer.weight.shape[0] * area


def layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]


@pytest.mark.parametrize(
    ("init", "deviation"),
    [
        ("kaiming", lambda fan_in, fan_out: math.sqrt(2 / fan_in)),
        ("xavier", lambda fan_in, fan_out: 0.5 * math.sqrt(2 / (fan_in + fan_out))),
        ("gaussian", lambda fan_in, fan_out: 0.5),
    ],
)
@pytest.mark.parametrize(
    "config",
    [
        MLPConfig(name="mlp", widths=[300, 200]),
        CNNConfig(name="cnn", channels=[16, 32, 32]),
        ResNetConfig(name="resnet", channels=[16, 32], norm=False),
        NetworkConfig(name="vgg16", width=0.25),
        NetworkConfig(name="resnet18", width=0.25),
        NetworkConfig(name="densenet121", width=0.5),
    ],
    ids=lambda config: config.name,
)
def test_weights_have_the_stated_deviation_and_biases_are_zero(config, init, deviation):
    torch.manual_seed(0)
    config = type(config)(**{**vars(config), "init": init, "init_gain": 0.5})
    for layer in layers(build_model(config, spec_for(config.name, "image"))):
        weight, expected = layer.weight.detach(), deviation(*fans(layer))
        samples = weight.numel()
        assert abs(weight.std() / expected - 1) < 5 / math.sqrt(2 * samples)  # five standard errors
        assert abs(weight.mean()) < 5 * expected / math.sqrt(samples)
        within = (weight.abs() < expected).float().mean()  # a normal distribution, not a uniform one (0.577)
        assert abs(within - 0.6827) < 5 * math.sqrt(0.6827 * 0.3173 / samples)
        assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize("init", ["kaiming", "xavier", "gaussian"])
def test_norm_layers_and_embeddings_stay(init):
    model = build_model(TransformerConfig(name="transformer", heads=2, head_dim=4, layers=1), SPECS["text"])
    for norm in (module for module in model.modules() if isinstance(module, nn.LayerNorm)):
        nn.init.uniform_(norm.weight)
        nn.init.uniform_(norm.bias)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    initialise(model, init, 0.02)
    moved = {key.rpartition(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def test_default_is_what_torch_draws():
    torch.manual_seed(1)
    model = build_model(MLPConfig(name="mlp", widths=[8]), SPECS["sequence"])
    torch.manual_seed(1)
    first, second = nn.Linear(35, 8), nn.Linear(8, 10)
    expected = [first.weight, first.bias, second.weight, second.bias]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), expected, strict=True))


def test_bad_values():
    with pytest.raises(UserError, match=r"unknown model\.init 'kaming' \(did you mean 'kaiming'\?\)"):
        initialise(nn.Linear(2, 2), "kaming")
    with pytest.raises(UserError, match=r"model\.init_gain takes a number above 0, got 0"):
        initialise(nn.Linear(2, 2), "gaussian", 0.0)
