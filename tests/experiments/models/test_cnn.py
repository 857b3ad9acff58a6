"""Plain convolutional networks."""

from __future__ import annotations

import pytest
import torch

from experiments.configuration.model_config import CNNConfig
from experiments.errors import UserError
from experiments.models.registry import build_model
from experiments.tasks import Spec

PAPER = CNNConfig(name="cnn", channels=[32, 64, 128])


@pytest.mark.parametrize(
    ("image", "features"), [((3, 32, 32), 2048), ((1, 28, 28), 1152), ((1, 8, 8), 128), ((3, 64, 64), 8192)]
)
def test_parameters_and_the_inputs_of_the_head(image, features):
    model = build_model(PAPER, Spec("image", image, 10))
    assert model.head.in_features == features  # 2048 on CIFAR, 2049 with the bias folded in
    convolutions = sum(9 * a * b + b for a, b in ((image[0], 32), (32, 64), (64, 128)))
    assert sum(parameter.numel() for parameter in model.parameters()) == convolutions + features * 10 + 10
    assert model(torch.randn(2, *image)).shape == (2, 10)


def test_an_image_too_small_for_the_poolings():
    with pytest.raises(UserError, match="at least 8x8, but the data's are 7x28"):
        build_model(PAPER, Spec("image", (1, 7, 28), 10))


@pytest.mark.parametrize("channels", [[], [8, -1]])
def test_bad_channels(channels):
    with pytest.raises(UserError, match=r"model\.channels"):
        build_model(CNNConfig(name="cnn", channels=channels), Spec("image", (1, 8, 8), 10))
