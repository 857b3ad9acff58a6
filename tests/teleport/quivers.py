"""Networks with their quivers written down by hand, which the methods are tested on without finding them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from teleport._quiver.quiver import Freedom, Quiver, Scaled, Site


def stack(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Linear layers of these widths with an activation between them."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1]).to(dtype)


def stack_quiver(
    model: nn.Module, function: Callable[..., Any] | None = None, freedom: Freedom = Freedom.NONZERO
) -> Quiver:
    """Of a :func:`stack`: one class per hidden channel; with sites if the ``function`` of the activation is given."""
    layers = [module for module in model if isinstance(module, nn.Linear)]
    scaled: dict[str, Scaled] = {}
    channel_classes: dict[str, Tensor] = {}
    sites = []
    count, below = 1, torch.zeros(1, dtype=torch.int64)
    for number, layer in enumerate(layers):
        last = number == len(layers) - 1
        own = torch.zeros(layer.out_features, dtype=torch.int64)
        if not last:
            own = torch.arange(count, count + layer.out_features)
            count += layer.out_features
        scaled[f"{2 * number}.weight"] = Scaled(layer.weight, own[:, None], below[None, :])
        scaled[f"{2 * number}.bias"] = Scaled(layer.bias, own, torch.zeros(1, dtype=torch.int64))
        channel_classes[f"{2 * number}.weight"] = own
        if function is not None and not last:
            sites.append(Site(number, function, own, homogeneous=freedom == Freedom.POSITIVE))
        below = own
    free = torch.full((count,), int(freedom))
    free[0] = Freedom.PINNED
    kinds = dict.fromkeys(channel_classes, "linear")
    return Quiver(free, torch.full((count,), -1), scaled, channel_classes, kinds, sites, {})


def random_tau(quiver: Quiver, low: float = 0.1, high: float = 1.9, negative: bool = False) -> Tensor:
    """Factors for a quiver from the global generator."""
    tau = low + (high - low) * torch.rand(len(quiver.freedom), dtype=torch.float64)
    if negative:
        tau = tau * (torch.randint(2, tau.shape) * 2 - 1)
    return quiver.complete(tau)
