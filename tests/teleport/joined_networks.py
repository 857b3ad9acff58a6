"""Networks whose channels are joined in every way that a rule knows, hand-written and functional ones among them."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.teleport.joined import Joined
from tests.teleport.joined_images import IMAGE_NETWORKS
from tests.teleport.networks import Calls, weight

FLAT = ((4, 6),)
WORDS = ((2, 5, 8),)


def _attention(net: Any, x: Tensor) -> Tensor:
    """Written by hand, with a packed projection."""
    batch, length, dim = x.shape
    query, key, value = net.qkv(net.norm(x)).reshape(batch, length, 3, 2, dim // 2).permute(2, 0, 3, 1, 4)
    scores = (query @ key.transpose(-2, -1)) / math.sqrt(dim // 2)
    mixed = F.dropout(scores.softmax(-1), 0.1, net.training) @ value
    return net.head(x + net.proj(mixed.transpose(1, 2).reshape(batch, length, dim)))


def _einsum(net: Any, x: Tensor) -> Tensor:
    query, key, value = (torch.einsum("bsd,dhk->bhsk", x, each) for each in (net.q, net.k, net.v))
    scores = torch.einsum("bhsk,bhtk->bhst", query, key).softmax(-1)
    return torch.einsum("bhsk,hkd->bsd", torch.einsum("bhst,bhtk->bhsk", scores, value), net.o)


def _functional(net: Any, x: Tensor) -> Tensor:
    hidden = torch.relu(x @ net.a + net.bias)
    hidden = torch.addmm(net.other, hidden, net.b.t()).clamp(min=0)
    return F.linear(hidden * net.scale, net.c.view(3, 7))


def _stochastic_depth(net: Any, x: Tensor) -> Tensor:
    x = net.first(x).relu()
    keep = torch.empty([len(x), 1], dtype=x.dtype).fill_(1 / 0.9)
    return net.last(x + net.second(x) * keep)


class Twofold(nn.Module):
    """Of two inputs and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 4), nn.Linear(5, 4)
        self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        hidden = self.first(x).relu() + self.second(y).relu()
        return {"one": self.one(hidden), "others": [self.two(hidden)]}


NETWORKS = IMAGE_NETWORKS | {
    "mlp": Joined(
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.LeakyReLU(), nn.Linear(7, 3)),
        FLAT,
        ("0.weight", "2.weight"),
        ("4.weight",),
    ),
    "relu, then add": Joined(
        lambda: Calls(
            lambda n, x: n.last(n.first(x).relu() + n.second(x).relu()),
            first=nn.Linear(6, 5), second=nn.Linear(6, 5), last=nn.Linear(5, 3),
        ),
        FLAT,
        ("first.weight", "second.weight"),
    ),
    "a skip from the input": Joined(
        lambda: Calls(
            lambda n, x: n.last((x + n.first(x)).relu()) + n.other(n.hidden(x)),
            first=nn.Linear(6, 6), last=nn.Linear(6, 3), hidden=nn.Linear(6, 5), other=nn.Linear(5, 3),
        ),
        FLAT,
        ("hidden.weight",),
        ("first.weight",),
    ),
    "add and concatenate in another order": Joined(
        lambda: Calls(
            lambda n, x: n.last(torch.cat([n.second(x), x, n.first(x)], 1)) + n.head(n.third(x).add(n.second(x))),
            first=nn.Linear(6, 4), second=nn.Linear(6, 5), third=nn.Linear(6, 5), last=nn.Linear(15, 3),
            head=nn.Linear(5, 3),
        ),
        FLAT,
        ("first.weight", "second.weight", "third.weight"),
    ),
    "two inputs, two outputs": Joined(
        Twofold, ((4, 6), (4, 5)), ("first.weight", "second.weight"), ("one.weight", "two.weight")
    ),
    "a module used twice": Joined(
        lambda: Calls(
            lambda n, x: n.last(n.shared(n.shared(n.first(x)).relu()).relu()),
            first=nn.Linear(6, 5), shared=nn.Linear(5, 5), last=nn.Linear(5, 3),
        ),
        FLAT,
        ("first.weight", "shared.weight"),
    ),
    "a module in two branches": Joined(
        lambda: Calls(
            lambda n, x: n.last(n.shared(n.first(x).relu()) - n.shared(n.second(x).relu())),
            first=nn.Linear(6, 5), second=nn.Linear(6, 5), shared=nn.Linear(5, 4), last=nn.Linear(4, 3),
        ),
        FLAT,
        ("first.weight", "second.weight", "shared.weight"),
    ),
    "functional": Joined(
        lambda: Calls(
            _functional, a=weight(6, 5), bias=weight(5), b=weight(7, 5), other=weight(7), scale=weight(7), c=weight(21)
        ),
        FLAT,
        ("a", "b", "scale"),
    ),
    "attention by hand": Joined(
        lambda: Calls(
            _attention, norm=nn.LayerNorm(8), qkv=nn.Linear(8, 24), proj=nn.Linear(8, 8), head=nn.Linear(8, 3)
        ),
        WORDS,
        ("norm.weight", "qkv.weight"),
        ("proj.weight",),
    ),
    "attention by einsum": Joined(
        lambda: Calls(
            _einsum, q=weight(8, 2, 4), k=weight(8, 2, 4), v=weight(8, 2, 4), o=weight(2, 4, 8)
        ),
        WORDS,
        ("q", "k", "v"),
    ),
    "transformer encoder": Joined(
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True), 2, enable_nested_tensor=False
        ),
        WORDS,
        ("layers.0.self_attn.in_proj_weight", "layers.1.linear1.weight", "layers.1.norm2.weight"),
        ("layers.0.self_attn.out_proj.weight", "layers.1.linear2.weight"),
    ),
    "stochastic depth": Joined(
        lambda: Calls(_stochastic_depth, first=nn.Linear(6, 5), second=nn.Linear(5, 5), last=nn.Linear(5, 3)),
        FLAT,
        ("first.weight", "second.weight"),
    ),
    "pinned by activations": Joined(
        lambda: nn.Sequential(
            nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.GELU(), nn.Linear(5, 5), nn.Hardswish(), nn.Linear(5, 4),
            nn.ELU(), nn.Linear(4, 3),
        ),
        FLAT,
        (),
        ("0.weight", "2.weight", "4.weight", "6.weight"),
    ),
    "a constant added": Joined(
        lambda: Calls(
            lambda n, x: n.last(n.second(n.first(x) + 1) + x[:, :5]),
            first=nn.Linear(6, 5), second=nn.Linear(5, 5), last=nn.Linear(5, 3),
        ),
        FLAT,
        (),
        ("first.weight", "second.weight"),
    ),
}  # fmt: skip
