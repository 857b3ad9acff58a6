"""Every model can be teleported: its outputs on the batch stay, in float64, while its weights move."""

from __future__ import annotations

import pytest
import torch
from specs import SPECS, batch
from torch.nn import functional as F

from experiments.configuration.model_config import CNNConfig, MLPConfig, ResNetConfig, TransformerConfig
from experiments.models.registry import build_model
from teleport import NullSpace

CASES = {
    "mlp": (MLPConfig(name="mlp", widths=[24, 24]), "image"),
    "cnn": (CNNConfig(name="cnn", channels=[4, 8]), "image"),
    "resnet": (ResNetConfig(name="resnet", channels=[4, 8]), "image"),
    "pooled transformer": (TransformerConfig(name="transformer", heads=4, head_dim=16, layers=1), "sequence"),
    "causal transformer": (TransformerConfig(name="transformer", heads=4, head_dim=16, layers=1), "text"),
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_stay_and_weights_move(case):
    torch.manual_seed(0)
    config, kind = CASES[case]
    spec = SPECS[kind]
    model = build_model(config, spec).double()
    inputs = batch(spec)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    targets = torch.randint(spec.outputs, (len(inputs), spec.input_shape[0]) if kind == "text" else (len(inputs),))

    def loss(model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(model(batch[0]).flatten(0, -2), batch[1].flatten())

    model.eval()
    before = model(inputs).detach()
    model.train()
    report = NullSpace(lr=0.1, steps=2)(model, [(inputs, targets)], loss)
    assert model.training
    assert report.accepted
    assert report.relative_change > 1e-6, report.reasons()
    assert report.gradient_norm_after > report.gradient_norm_before
    model.eval()
    torch.testing.assert_close(model(inputs), before, rtol=1e-9, atol=1e-9)
