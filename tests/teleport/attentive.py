"""Small networks with attention, and the list of all networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.teleport.networks import CLASSES, CONVOLUTIONS, LINEAR, WIDTH, Calls, Network

PARTS = tuple(f"attention.in_proj_weight[{row * WIDTH}:{(row + 1) * WIDTH}]" for row in range(3))


def _attentive(use: Callable[[Any, Tensor], Tensor], **kwargs: Any) -> Callable[[], nn.Module]:
    """tanh(Linear) on every token -> the attention -> mean over tokens -> Linear."""

    def build() -> nn.Module:
        return Calls(
            lambda net, x: net.last(use(net, torch.tanh(net.first(x)))),
            first=nn.Linear(6, WIDTH),
            attention=nn.MultiheadAttention(WIDTH, 4, **kwargs),
            last=nn.Linear(WIDTH, CLASSES),
            keys=nn.Linear(6, 20),
            values=nn.Linear(6, 22),
        )

    return build


def _self(net: Any, x: Tensor) -> Tensor:
    return net.attention(x, x, x)[0].mean(1)


def _masked(net: Any, x: Tensor) -> Tensor:
    padding = torch.tensor([[False, True], [False, False], [False, False], [False, True]])
    causal = torch.ones(2, 2, dtype=torch.bool).triu(1)
    return net.attention(x, x, x, key_padding_mask=padding, attn_mask=causal, need_weights=False)[0].mean(1)


def _cross(net: Any, x: Tensor) -> Tensor:
    memory = torch.tanh(x.flip(1).cumsum(1))
    return net.attention(x, memory, memory)[0].mean(1)


def _sequence_first(net: Any, x: Tensor) -> Tensor:
    x = x.transpose(0, 1)
    return net.attention(x, x, x)[0].mean(0)


def _twice(net: Any, x: Tensor) -> Tensor:
    y = torch.tanh(net.attention(x, x, x)[0])
    return net.attention(y, x, x)[0].mean(1)


def _other_widths(net: Any, x: Tensor) -> Tensor:
    keys, values = torch.tanh(net.keys(x[..., :6])), torch.tanh(net.values(x[..., :6]))
    return net.attention(x, keys, values)[0].mean(1)


def _networks() -> list[Network]:
    moving = (*PARTS, "attention.out_proj.weight", "last.weight")
    separate = tuple(f"attention.{name}_proj_weight" for name in "qkv")
    layer = nn.TransformerEncoderLayer
    encoder = ("self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
    return [
        Network("attention", _attentive(_self, batch_first=True), (2, 6), moving),
        Network("attention masked", _attentive(_masked, batch_first=True), (2, 6), moving),
        Network("attention cross", _attentive(_cross, batch_first=True, bias=False), (2, 6), moving),
        Network(
            "attention sequence first",
            _attentive(_sequence_first, add_bias_kv=True, add_zero_attn=True),
            (2, 6),
            moving,
        ),
        Network("attention called twice", _attentive(_twice, batch_first=True), (2, 6), moving),
        Network(
            "attention kdim vdim",
            _attentive(_other_widths, batch_first=True, kdim=20, vdim=22),
            (2, 6),
            (*separate, "attention.out_proj.weight", "last.weight"),
        ),
        Network(
            "transformer encoder",
            lambda: Calls(
                lambda net, x: net.last(net.block(net.first(x)).mean(1)),
                first=nn.Linear(6, WIDTH),
                block=layer(WIDTH, 4, 2 * WIDTH, batch_first=True, norm_first=True),
                last=nn.Linear(WIDTH, CLASSES),
            ),
            (2, 6),
            (*(f"block.{name}" for name in encoder), "last.weight"),
        ),
        Network(
            "attention by hand",
            lambda: Calls(
                _by_hand,
                first=nn.Linear(6, WIDTH),
                qkv=nn.Linear(WIDTH, 3 * WIDTH),
                out=nn.Linear(WIDTH, WIDTH),
                last=nn.Linear(WIDTH, CLASSES),
            ),
            (2, 6),
            ("qkv.weight", "out.weight", "last.weight"),
        ),
    ]


def _by_hand(net: Any, x: Tensor) -> Tensor:
    queries, keys, values = net.qkv(torch.tanh(net.first(x))).chunk(3, dim=-1)
    heads = [part.unflatten(-1, (4, -1)).transpose(1, 2) for part in (queries, keys, values)]
    mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
    return net.last(torch.tanh(net.out(mixed.transpose(1, 2).flatten(2))).mean(1))


NETWORKS = [*LINEAR, *CONVOLUTIONS, *_networks()]
