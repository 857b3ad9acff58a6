"""The paper's four networks, narrow enough for tests, in double precision, with a batch to look at them by."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments.configuration.validate import resolve
from experiments.models.registry import build_model
from experiments.tasks import Spec
from tests.experiments.small import composed

NETWORKS = ("mlp500", "vgg16", "resnet18", "densenet121")
QUICK_FIRST = (*NETWORKS[:3], pytest.param("densenet121", marks=pytest.mark.slow))
"""The same for tests that differentiate through them, which takes ten seconds for the deepest."""


def network(name: str, width: float = 0.125, activation: str = "relu") -> nn.Module:
    """One of them for small colour images; the MLP is 5x50."""
    size = ["model.widths=[50,50,50,50,50]"] if name == "mlp500" else [f"model.width={width}"]
    config = resolve(composed("data=random", f"model={name}", f"model.activation={activation}", *size))
    torch.manual_seed(0)
    return build_model(config.model, Spec("image", (3, 32, 32), 10)).double()


def batch(samples: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise, labelled at random."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, 3, 32, 32, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(10, (samples,), generator=generator)


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy."""
    return cross_entropy(model(batch[0]), batch[1])
