"""The models of the suite take the same steps with the forward pass run once per batch as with it run each time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from experiments.configuration.model_config import CNNConfig, ResNetConfig, TransformerConfig
from experiments.models import cnn, resnet, transformer
from experiments.tasks import Spec
from tests.teleport.frozen_forward.test_frozen_forward import assert_same, both
from tests.teleport.whole_models import images, loss, tokens

IMAGES, TOKENS = Spec("image", (3, 16, 16), 5), Spec("text", (6,), 11)


def text() -> nn.Module:
    return transformer.build(TransformerConfig(name="transformer", heads=2, head_dim=24, layers=2), TOKENS)


SUITE: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "cnn": (lambda: cnn.build(CNNConfig(name="cnn", channels=[8, 16, 16]), IMAGES), images),
    "resnet": (lambda: resnet.build(ResNetConfig(name="resnet", channels=[8, 32]), IMAGES), images),
    "transformer": (text, tokens),
}


@pytest.mark.parametrize("name", SUITE)
def test_forward_once_takes_the_same_steps(name, caplog):
    build, batch_of = SUITE[name]

    def make() -> Any:
        torch.manual_seed(1)
        model = build().double()
        return model, [batch_of() for _ in range(2)]

    with caplog.at_level(logging.DEBUG, "teleport"):
        assert_same(both(make, loss, lr=1.0, steps=4, relative_cap=2.0))
    assert not caplog.messages
