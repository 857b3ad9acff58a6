"""Networks, batches and helpers that the tests of symmetry teleportation share."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn

from teleport import Symmetry
from teleport._engine.batch_loss import BatchLoss
from teleport._symmetry.group_path import AdjacentLayers
from teleport._tracing.layer_pairs import trace_layer_pairs
from tests.teleport.networks import cross_entropy
from tests.teleport.symmetry_reference import SLOPE

VARIANTS = ["2022", "2024", "corrected"]


def mlp(*sizes: int, bias: bool = True, activation=None, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out, bias=bias), activation or nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers[:-1]).to(dtype)


def batch_of(samples: int, features: int = 12, dtype: torch.dtype = torch.float64):
    torch.manual_seed(samples)
    return torch.randn(samples, features).to(dtype), torch.arange(samples) % 3


def layers_of(model: nn.Module, batch, variant: str) -> tuple[AdjacentLayers, BatchLoss]:
    def evaluate():
        return cross_entropy(model, batch)

    traced = trace_layer_pairs(evaluate, dict(model.named_parameters()))
    return AdjacentLayers(traced.pairs, Symmetry(variant).pair_action), BatchLoss(evaluate, list(model.parameters()))


def leaky(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, SLOPE * values)


def arrays(model: nn.Module) -> list[np.ndarray]:
    return [parameter.detach().numpy().copy() for parameter in model.parameters()]
