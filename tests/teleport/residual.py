"""A small residual net that changes of basis are tried on, and what a teleport is asked for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from teleport import TeleportReport


class Residual(nn.Module):
    """A convolutional net with batch norm, a skip connection and any activation."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), activation())
        self.branch = nn.Sequential(
            nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), activation(), nn.Conv2d(5, 6, 1)
        )
        self.last = activation()
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.pool(self.last(x + self.branch(x))).mean((2, 3)))


def residual(activation: type[nn.Module] = nn.ReLU, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    """The net, with batch norms that are not new ones, and other data than it is teleported on."""
    torch.manual_seed(1)
    model = Residual(activation)
    for value in (*model.parameters(), *model.buffers()):
        if value.is_floating_point():
            value.data += 0.2 * torch.rand_like(value)
    return model.to(dtype), torch.randn(7, 2, 8, 8).to(dtype)


def images(dtype: torch.dtype = torch.float64) -> list[tuple[Tensor]]:
    return [(torch.randn(3, 2, 8, 8).to(dtype),) for _ in range(2)]


def moved(model: nn.Module, start: dict[str, Tensor]) -> set[str]:
    return {name for name, value in model.named_parameters() if not torch.equal(value, start[name])}


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def channels(report: TeleportReport) -> dict[str, tuple[int, int, int]]:
    return {layer.name: (layer.free, layer.shared, layer.pinned) for layer in report.layers if layer.dimension}
