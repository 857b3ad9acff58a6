"""Small whole models of the usual kinds, with a batch: convolutional, residual with batch norm, causal transformer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WORDS, LENGTH, WIDTH = 11, 6, 48


class Block(nn.Module):
    """``relu(x + second(relu(first(x))))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_norm(channels, channels, 1)
        self.second = conv_norm(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


def conv_norm(fan_in: int, fan_out: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(fan_in, fan_out, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(fan_out))


class Decoder(nn.Module):
    """Two pre-norm blocks of causal attention with two heads, on tokens; every token is predicted."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.layers = nn.ModuleList(
            nn.ModuleDict({
                "norm": nn.LayerNorm(WIDTH),
                "projections": nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3)),
                "output": nn.Linear(WIDTH, WIDTH),
                "mlp": nn.Sequential(
                    nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.ReLU(), nn.Linear(4 * WIDTH, WIDTH)
                ),
            })
            for _ in range(2)
        )  # fmt: skip
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for layer in self.layers:
            normed = layer["norm"](x)
            parts = [each(normed).unflatten(-1, (2, -1)).transpose(1, 2) for each in layer["projections"]]
            mixed = F.scaled_dot_product_attention(*parts, is_causal=True)
            x = x + layer["output"](mixed.transpose(1, 2).flatten(2))
            x = x + layer["mlp"](x)
        return self.head(self.norm(x))


def convolutional() -> nn.Module:
    """Three convolutions with pooling, [4, 3, 16, 16] -> [4, 5]."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in ((3, 8), (8, 16), (16, 16)):
        layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 5))


def residual() -> nn.Module:
    """Two strided stages with a residual block each, [4, 3, 16, 16] -> [4, 5]."""
    layers: list[nn.Module] = []
    for fan_in, fan_out, stride in ((3, 8, 1), (8, 32, 2)):
        layers += [conv_norm(fan_in, fan_out, stride), nn.ReLU(), Block(fan_out)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))


def images() -> Any:
    return torch.randn(4, 3, 16, 16).double(), torch.arange(4)


def tokens() -> Any:
    return torch.randint(WORDS, (3, LENGTH)), torch.randint(WORDS, (3, LENGTH))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "convolutional": (convolutional, images),
    "residual": (residual, images),
    "transformer": (Decoder, tokens),
}
"""Name -> the model and a batch of it in double precision."""


def loss(model: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy over samples, or over all tokens."""
    return F.cross_entropy(model(batch[0]).flatten(0, -2), batch[1].flatten())
