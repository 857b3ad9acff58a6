"""Residual networks."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from experiments.configuration.model_config import ResNetConfig
from experiments.errors import UserError
from experiments.models.registry import build_model
from experiments.models.resnet import ResidualBlock
from experiments.tasks import Spec


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("colours", [1, 3])
def test_parameters_against_the_closed_form(colours, norm):
    config = ResNetConfig(name="resnet", channels=[64, 128, 256, 512], norm=norm)
    model = build_model(config, Spec("image", (colours, 64, 64), 200))
    expected = 512 * 200 + 200
    for fan_in, fan_out in ((colours, 64), (64, 128), (128, 256), (256, 512)):
        weights = 9 * fan_in * fan_out + 2 * 9 * fan_out * fan_out
        expected += weights + 3 * fan_out * (2 if norm else 1)  # scale and shift of a norm, or a bias
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_a_block_adds_its_input():
    block = ResidualBlock(4, "tanh", norm=False).double()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    inner = torch.tanh(F.conv2d(x, block.first[0].weight, block.first[0].bias, padding=1))
    expected = torch.tanh(x + F.conv2d(inner, block.second[0].weight, block.second[0].bias, padding=1))
    torch.testing.assert_close(block(x), expected)


def test_a_block_whose_branch_is_zero_is_its_activation():
    block = ResidualBlock(4, "relu", norm=True)
    torch.nn.init.zeros_(block.second[1].weight)
    x = torch.randn(2, 4, 5, 6)
    assert torch.equal(block(x), x.relu())


@pytest.mark.parametrize(("size", "stem_stride", "last"), [(64, 1, 8), (64, 2, 4), (224, 4, 7), (28, 2, 2), (8, 2, 1)])
def test_strides_halve_the_image_at_every_size(size, stem_stride, last):
    config = ResNetConfig(name="resnet", channels=[4, 4, 4, 4], stem_stride=stem_stride)
    model = build_model(config, Spec("image", (3, size, size), 5))
    assert model(torch.randn(2, 3, size, size)).shape == (2, 5)
    features = model[: list(dict(model.named_children())).index("pool")]
    assert features(torch.randn(2, 3, size, size)).shape == (2, 4, last, last)


def test_without_norm_there_is_none():
    spec = Spec("image", (3, 16, 16), 5)
    norms = [
        sum(isinstance(module, torch.nn.BatchNorm2d) for module in build_model(config, spec).modules())
        for config in (
            ResNetConfig(name="resnet", channels=[4, 8], norm=True),
            ResNetConfig(name="resnet", channels=[4, 8], norm=False),
        )
    ]
    assert norms == [6, 0]


def test_bad_values():
    spec = Spec("image", (3, 16, 16), 5)
    with pytest.raises(UserError, match=r"model\.channels"):
        build_model(ResNetConfig(name="resnet", channels=[]), spec)
    with pytest.raises(UserError, match=r"model\.stem_stride"):
        build_model(ResNetConfig(name="resnet", channels=[4], stem_stride=0), spec)
