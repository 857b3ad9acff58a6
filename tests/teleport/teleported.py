"""A slow and obvious change of basis by a quiver, to see whether the network computes the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from teleport._quiver.find_quiver import find_quiver
from teleport._quiver.quiver import Freedom, Quiver, Site
from teleport._quiver.rules import ACTIVATIONS
from teleport._tracing.ownership import tensors_in


class InTeleportedForm(TorchFunctionMode):
    """Computes the calls at a quiver's sites as ``tau f(x / tau)``."""

    def __init__(self, sites: Iterable[Site], tau: Tensor) -> None:
        super().__init__()
        self.tau = tau
        self.sites = {(site.function, site.call): site for site in sites}
        self.calls: Counter[Callable[..., Any]] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        site = None
        if func in ACTIVATIONS:
            site = self.sites.get((func, self.calls[func]))
            self.calls[func] += 1
        if site is None:
            return func(*args, **kwargs)
        (first, *others) = args if args else (kwargs.pop("input"),)
        tau = self.tau[site.classes].to(first.dtype)
        return func(first / tau, *others, **kwargs) * tau


def draw(quiver: Quiver, seed: int = 0) -> Tensor:
    """A factor of 0.5 to 2 for each class, negative where that is free."""
    random = torch.Generator().manual_seed(seed)
    size = torch.empty(len(quiver.freedom)).uniform_(-0.7, 0.7, generator=random).double().exp()
    sign = 1 - 2 * torch.randint(2, size.shape, generator=random)
    return quiver.complete(torch.where(quiver.freedom == Freedom.NONZERO, sign * size, size))


def apply(quiver: Quiver, tau: Tensor) -> None:
    with torch.no_grad():
        for scaled in quiver.scaled.values():
            scaled.parameter.mul_(scaled.factors(tau).to(scaled.parameter.dtype))


def quiver_of(model: nn.Module, *inputs: Any, in_place: bool = True) -> Quiver:
    return find_quiver(lambda: model(*inputs), dict(model.named_parameters()), in_place)


def error(model: nn.Module, *inputs: Any, in_place: bool = True, seed: int = 0) -> tuple[float, Quiver]:
    """How far a random change of basis moves the outputs, relative to the largest; and the quiver."""
    with torch.no_grad():
        quiver = quiver_of(model, *inputs, in_place=in_place)
        before = [output.clone() for output in tensors_in(model(*inputs))]
        tau = draw(quiver, seed)
        apply(quiver, tau)
        with InTeleportedForm(quiver.sites, tau):
            after = list(tensors_in(model(*inputs)))
    pairs = zip(after, before, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-300)) for a, b in pairs), quiver


def free(quiver: Quiver) -> dict[str, float]:
    """The share of each weight's channels that is free."""
    return {name: float((units > 0).double().mean()) for name, units in quiver.channel_classes.items()}
