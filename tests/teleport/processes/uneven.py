"""Networks whose parameters have numbers of rows that two processes do not halve."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.teleport.rotary import halves


class Block(nn.Module):
    """A block as in Llama: RMS norms, rotary attention of four query heads on two key heads, a gated network."""

    def __init__(self, width: int, inner: int, dim: int = 4) -> None:
        super().__init__()
        self.dim = dim
        self.norm, self.other = nn.RMSNorm(width), nn.RMSNorm(width)
        self.query, self.out = (nn.Linear(*sizes, bias=False) for sizes in ((width, 4 * dim), (4 * dim, width)))
        self.key, self.value = (nn.Linear(width, 2 * dim, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, width, bias=False)
        for norm in (self.norm, self.other):
            nn.init.uniform_(norm.weight, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        query, key, value = (
            layer(y).unflatten(-1, (-1, self.dim)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        rates = 0.01 ** (torch.arange(0, self.dim, 2, dtype=x.dtype) / self.dim)
        angles = torch.outer(torch.arange(x.shape[1], dtype=x.dtype), rates)
        query, key = halves(query, angles), halves(key, angles)
        key, value = (each.repeat_interleave(2, 1) for each in (key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        y = self.other(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    """Tokens to the next token; sizes that two ranks do not halve."""

    def __init__(self, blocks: int = 2, width: int = 10, inner: int = 15) -> None:
        super().__init__()
        self.embedding = nn.Embedding(13, width)
        self.blocks = nn.ModuleList(Block(width, inner) for _ in range(blocks))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, 13, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def llama(blocks: int = 2) -> Llama:
    torch.manual_seed(0)
    return Llama(blocks).double()


def layers() -> nn.Sequential:
    """A network whose layers have 7, 9, 5 and 1 rows, with batch norm and an odd activation."""
    torch.manual_seed(1)
    parts = [nn.Sequential(nn.Linear(7, 7), nn.BatchNorm1d(7), nn.ReLU()), nn.Sequential(nn.Linear(7, 9), nn.Tanh())]
    model = nn.Sequential(*parts, nn.Sequential(nn.Linear(9, 5), nn.Linear(5, 6), nn.ReLU()), nn.Linear(6, 1)).double()
    nn.init.normal_(model[0][1].running_mean)
    nn.init.uniform_(model[0][1].running_var, 0.5, 2.0)
    return model


class Reading(nn.Module):
    """A network that branches on a value of a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(7, 5), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.last(x) if self.last.weight[0, 0].item() < 100 else x


def reading() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(Reading()).double()
