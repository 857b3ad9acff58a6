"""Small networks whose symmetries are known, written in torch alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """A residual block of attention; with fewer key heads than query heads, and rotary embeddings, if said."""

    def __init__(self, heads: int = 3, key_heads: int = 3, rotary: bool = False, norm: bool = True) -> None:
        super().__init__()
        self.heads, self.key_heads, self.rotary = heads, key_heads, rotary
        width = 4 * heads
        self.embed = nn.Linear(5, width)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key, self.value = nn.Linear(width, 4 * key_heads), nn.Linear(width, 4 * key_heads)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        batch, length, width = x.shape
        normed = self.norm(x)
        query, key, value = (
            layer(normed).view(batch, length, -1, 4).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        if self.rotary:
            query, key = rotated(query), rotated(key)
        repeats = self.heads // self.key_heads
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
        mixed = (query @ key.transpose(-1, -2) / 2).softmax(-1) @ value
        return self.head(x + self.out(mixed.transpose(1, 2).reshape(batch, length, width)))


def rotated(x: Tensor) -> Tensor:
    """Rotary position embeddings of ``x [..., length, 4]``."""
    angles = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * torch.tensor([1.0, 0.1], dtype=x.dtype)
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
    return x * cos + torch.cat([-x[..., 2:], x[..., :2]], -1) * sin


class Packed(nn.Module):
    """Queries, keys and values from one weight, in torch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.packed, self.out, self.head = nn.Linear(6, 36), nn.Linear(12, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.packed(x).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (3, 4)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.head(torch.tanh(x + self.out(mixed.transpose(1, 2).flatten(2))))


class Images(nn.Module):
    """Convolutions of all kinds with batch norms, a residual sum, a concatenation, and a shuffle of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.grouped, self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.second, self.last = nn.Conv2d(16, 12, 1), nn.Conv2d(12, 6, 1)
        self.groups, self.head = nn.GroupNorm(3, 12), nn.Linear(6, 4)
        for each in (self.norm.running_mean, self.norm.bias):
            nn.init.normal_(each)  # type: ignore[arg-type]
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        y = x + self.depthwise(F.silu(self.grouped(x)))
        shuffled = y.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)
        z = self.groups(self.second(torch.cat([shuffled, F.max_pool2d(x, 3, 1, 1)], 1)))
        return self.head(self.last(F.elu(z)).mean((2, 3)))


class Adapted(nn.Module):
    """A frozen weight with a low-rank correction, as of LoRA."""

    def __init__(self, rank: int = 2) -> None:
        super().__init__()
        self.base = nn.Linear(5, 6).requires_grad_(False)
        self.down, self.up = nn.Linear(5, rank, bias=False), nn.Linear(rank, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 0.5 * self.up(self.down(x))


class Rotatable(nn.Module):
    """A residual stream under a norm without weights."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, width, bias=False), nn.Linear(width, 6, bias=False)
        self.up, self.down = nn.Linear(width, 7, bias=False), nn.Linear(7, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.down(torch.sigmoid(self.up(F.rms_norm(x, x.shape[-1:], eps=0.1))))
        return self.head(F.rms_norm(x, x.shape[-1:], eps=0.1))
