"""Spectra of the layer inputs of a model against forward passes and a dense SVD."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from teleport import representations
from tests.teleport.networks import cross_entropy


def test_spectra_over_batches_match_a_dense_svd():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 5, bias=False), nn.Tanh(), nn.Linear(5, 3)).double()
    batches = [(torch.randn(7, 6).double(), torch.arange(7) % 3) for _ in range(3)]
    found = representations(model, iter(batches), cross_entropy)
    assert list(found) == ["0.weight", "2.weight", "4.weight"]
    inputs = torch.cat([inputs for inputs, _ in batches])
    for index, bias in ((0, True), (2, False), (4, True)):
        rows = model[:index](inputs).detach().numpy()
        if bias:
            rows = np.concatenate([rows, np.ones((len(rows), 1))], 1)
        expected = np.linalg.svd(rows, compute_uv=False) ** 2
        np.testing.assert_allclose(found[f"{index}.weight"].spectrum()[0].numpy(), expected, rtol=1e-9, atol=1e-9)
        assert found[f"{index}.weight"].positions == 21


def test_frozen_layers_have_no_spectrum():
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    model[0].requires_grad_(False)
    batch = (torch.randn(5, 6), torch.arange(5) % 3)
    assert list(representations(model, [batch], cross_entropy)) == ["2.weight"]
