"""Small networks in common styles of code, for tests of properties that must hold on any network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Inception(nn.Module):
    """Parallel branches, one of them a pooling of the input, joined by concatenation with each other and the input.

    Shapes: [b, 3, h, w] with even h and w -> [b, outputs].
    """

    def __init__(self, outputs: int = 10) -> None:
        super().__init__()
        self.pooled = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(3, 8, 1))
        self.narrow = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1))
        self.wide = nn.Sequential(nn.Conv2d(3, 6, 5, padding=2, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.mixed = nn.Conv2d(26 + 3, 24, 3, padding=1)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.head = nn.Linear(24, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of images."""
        joined = F.relu(torch.cat([self.pooled(x), x, self.narrow(x), self.wide(x)], dim=1))
        mixed = self.mixed(joined)
        mixed = F.relu(mixed) + self.depthwise(mixed)
        return self.head(F.avg_pool2d(mixed, 2).mean((2, 3)))


class UNet(nn.Module):
    """An encoder and a decoder with a concatenated skip at each size.

    The decoder upsamples first by a transposed convolution, then by bilinear interpolation.

    Shapes: [b, 3, h, w] with h and w multiples of 4 -> [b, outputs, h, w].
    """

    def __init__(self, outputs: int = 4) -> None:
        super().__init__()
        self.first = self._block(3, 8)
        self.second = self._block(8, 16)
        self.bottom = self._block(16, 32)
        self.grow = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.fourth = self._block(32, 16)
        self.fifth = self._block(24, 8)
        self.head = nn.Conv2d(8, outputs, 1)

    @staticmethod
    def _block(fan_in: int, fan_out: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(fan_out),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(fan_out, fan_out, 3, padding=1),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores of every pixel."""
        first = self.first(x)
        second = self.second(F.max_pool2d(first, 2))
        bottom = self.bottom(F.max_pool2d(second, 2))
        up = self.fourth(torch.cat([self.grow(bottom), second], dim=1))
        up = F.interpolate(up, scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(self.fifth(torch.cat([first, up], dim=1)))


class Functional(nn.Module):
    """Bare parameters in calls of ``torch.nn.functional``: a step used twice, tanh and ReLU, two outputs.

    Shapes: [b, 3, h, w] -> scores [b, outputs] and an embedding [b, 5].
    """

    def __init__(self, outputs: int = 10) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.randn(16, 3, 3, 3) / 27**0.5)
        self.shift = nn.Parameter(0.1 * torch.randn(16))
        self.step = nn.Parameter(torch.randn(16, 16) / 4)
        self.up, self.down = (nn.Parameter(torch.randn(shape) / 4) for shape in ((16, 24), (24, outputs)))
        self.gate = nn.Parameter(torch.randn(5, 16) / 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and an embedding of images."""
        hidden = F.conv2d(x, self.filters, self.shift, stride=2, padding=1).clamp(min=0).flatten(2).mean(-1)
        for _ in range(2):
            hidden = hidden + torch.relu(hidden @ self.step.t())
        scores = torch.matmul(F.leaky_relu(torch.mm(hidden, self.up), 0.2), self.down)
        return scores, torch.tanh(F.linear(hidden, self.gate)) * 2


class Encoder(nn.Module):
    """PyTorch's transformer encoder between an embedding and a head.

    Shapes: int64 tokens [b, length] below ``vocabulary``, at most 32 of them -> [b, outputs].
    """

    def __init__(self, vocabulary: int = 50, outputs: int = 10) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 32)
        self.positions = nn.Parameter(0.1 * torch.randn(32, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, activation="relu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(32, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """Class scores of token sequences."""
        return self.head(self.encoder(self.embedding(tokens) + self.positions[: tokens.shape[1]]).mean(1))
