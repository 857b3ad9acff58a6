"""The loss over two parameters."""

from __future__ import annotations

import torch
from torch import nn

from experiments.analyses.landscape import surface


def test_a_known_surface_and_parameters_that_stay():
    first, second = (nn.Parameter(torch.full((1, 1), value, dtype=torch.float64)) for value in (0.3, -0.7))
    ticks = torch.linspace(-1, 1, 5, dtype=torch.float64)
    found = surface(first, second, ticks, lambda: (first**2 + 3 * second).squeeze())
    torch.testing.assert_close(found, ticks[:, None] ** 2 + 3 * ticks)
    assert (first.item(), second.item()) == (0.3, -0.7)
