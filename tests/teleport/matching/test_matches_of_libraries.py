"""Planted elements on models of torchvision, torch and transformers are found again."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import teleport
from tests.teleport.vision import torchvision

GPT = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "use_cache": False}


def resnet18():
    return torchvision().models.resnet18(weights=None)


def encoder():
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)


def gpt2():
    torchvision()
    transformers = pytest.importorskip("transformers")
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT, bos_token_id=0, eos_token_id=0))


MODELS = {
    "ResNet18": (resnet18, lambda dtype: torch.randn(2, 3, 32, 32, dtype=dtype), None),
    "TransformerEncoder": (encoder, lambda dtype: torch.randn(2, 5, 32, dtype=dtype), None),
    "GPT-2": (gpt2, lambda dtype: torch.randint(50, (2, 7)), lambda model, tokens: model(tokens).logits),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype", "group"),
    [*((name, torch.float64, "all") for name in MODELS), ("GPT-2", torch.float32, "permutation")],
)
def test_a_planted_element_is_found(name, dtype, group):
    make, data, forward = MODELS[name]
    torch.manual_seed(0)
    a = make().to(dtype).eval()
    for parameter in a.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, 0.5, 0.2)
    b, batch = copy.deepcopy(a), data(dtype)
    teleport.ChangeOfBasis(group=group, seed=1)(b, [batch], forward=forward)
    found = teleport.match(a, b, [batch], group=group, forward=forward)
    norm = sum(float(each.detach().double().square().sum()) for each in a.parameters()) ** 0.5
    assert found.distance_before > 0.1 * norm
    assert found.distance_after <= (1e-13 * norm if group == "all" else 0)
    assert found.difference < (1e-10 if dtype == torch.float64 else 1e-5)
