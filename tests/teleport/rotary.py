"""Attention with rotary position embeddings in the forms in which libraries write them, and in forms that are none."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def halves(x, angles):
    """As in Llama: the halves of a head, cosines and sines repeated."""
    repeated = torch.cat((angles, angles), -1)[None, None]
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), -1)
    return x * repeated.cos() + turned * repeated.sin()


def repeated(x, angles):
    twice = angles.repeat(1, 2)
    first, second = x.chunk(2, -1)
    return x * twice.cos() + torch.cat((-second, first), -1) * twice.sin()


def pairs(x, angles):
    """As in GPT-J: neighbouring units."""
    cos, sin = (each.repeat_interleave(2, -1) for each in (angles.cos(), angles.sin()))
    turned = torch.stack((-x[:, :, :, 1::2], x[:, :, :, ::2]), -1).flatten(-2)
    return x * cos + turned * sin


def products(x, angles):
    first, second = x.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def products_of_pairs(x, angles):
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((first * cos - second * sin, first * sin + second * cos), -1).flatten(-2)


def complex_numbers(x, angles):
    factors = torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * factors).flatten(3)


def another_sign(x, angles):
    first, second = x.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos + second * sin, second * cos + first * sin), -1)


def crossed(x, angles):
    first, second = x.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, second * sin + first * cos), -1)


def other_angles(x, angles):
    both = torch.cat((angles, 2 * angles), -1)
    first, second = x.chunk(2, -1)
    return x * both.cos() + torch.cat((-second, first), -1) * both.sin()


def mixed(x, angles):
    """Halves are turned, and neighbours have one angle."""
    cos, sin = (each.repeat_interleave(2, -1) for each in (angles.cos(), angles.sin()))
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def one_half_besides(x, angles):
    return halves(x, angles) + 0.1 * x[..., : x.shape[-1] // 2].sum(-1, keepdim=True)


def one_angle_set(x, angles):
    both = torch.cat((angles, angles), -1)
    both[:, 0] = 0.3
    first, second = x.chunk(2, -1)
    return x * both.cos() + torch.cat((-second, first), -1) * both.sin()


def swapped(x, angles):
    first, second = x.chunk(2, -1)
    return x + torch.cat((second, first), -1) * angles.cos().mean()


def partly(x, angles):
    """Of a head, the first half alone."""
    half = x.shape[-1] // 2
    return torch.cat((halves(x[..., :half], angles[:, : half // 2]), x[..., half:]), -1)


ROTARY = {each.__name__: each for each in (halves, repeated, pairs, products, products_of_pairs, complex_numbers)}
OTHERS = {
    each.__name__: each
    for each in (another_sign, crossed, other_angles, mixed, one_half_besides, one_angle_set, swapped, partly)
}


class Rotary(nn.Module):
    """Four query heads on two key heads, with positions by a function of the heads and the angles."""

    def __init__(self, turn, heads: int = 4, key_heads: int = 2, dim: int = 8) -> None:
        super().__init__()
        self.heads, self.key_heads, self.dim, self.turn = heads, key_heads, dim, turn
        self.embed, self.query = nn.Linear(5, 16), nn.Linear(16, heads * dim)
        self.key, self.value = nn.Linear(16, key_heads * dim), nn.Linear(16, key_heads * dim)
        self.out, self.head = nn.Linear(heads * dim, 16), nn.Linear(16, 3)
        self.register_buffer("rates", 0.01 ** (torch.arange(0, dim, 2) / dim), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        batch, length, _ = x.shape
        query, key, value = (
            layer(x).view(batch, length, -1, self.dim).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        angles = torch.outer(torch.arange(length, dtype=x.dtype), self.rates.to(x.dtype))
        query, key = self.turn(query, angles), self.turn(key, angles)
        repeats = self.heads // self.key_heads
        key = key[:, :, None].expand(batch, self.key_heads, repeats, length, self.dim).flatten(1, 2)
        value = value.repeat_interleave(repeats, 1)
        mixed = (query @ key.mT / 3).softmax(-1) @ value
        return self.head((x + self.out(mixed.transpose(1, 2).flatten(2))).tanh())
