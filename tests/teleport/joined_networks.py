"""Networks whose channels are joined in every way that a rule knows, hand-written and functional ones among them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.teleport.networks import Calls, weight


@dataclass(frozen=True)
class Joined:
    """A network, the shapes of its inputs, weights whose channels are all free, and such as carry 1 (in place)."""

    build: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    free: tuple[str, ...]
    pinned: tuple[str, ...] = ()

    def make(self) -> tuple[nn.Module, list[Tensor]]:
        torch.manual_seed(1)
        model = self.build().double().eval()
        for buffer in model.buffers():  # statistics that are not those of a new batch norm
            if buffer.is_floating_point():
                buffer.copy_(buffer + torch.rand_like(buffer))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model, [torch.randn(shape).double() for shape in self.shapes]


IMAGES = ((2, 3, 8, 8),)
FLAT = ((4, 6),)
WORDS = ((2, 5, 8),)


def conv(fan_in: int, fan_out: int, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(fan_in, fan_out, size, padding=size // 2, **options)


def _inception(net: Any, x: Tensor) -> Tensor:
    """A branch that begins with a pool, which has no channels of its own, and one from the network's input."""
    x = net.stem(x).relu()
    branches = [F.max_pool2d(x, 3, 1, 1), net.one(x).relu(), net.two(net.one_two(x).relu()).relu()]
    branches.append(net.pooled(F.avg_pool2d(x, 3, 1, 1)).relu())
    return net.head(torch.cat(branches, 1).mean((2, 3)))


def _u_net(net: Any, x: Tensor) -> Tensor:
    first = net.down1(x).relu()
    second = net.down2(F.max_pool2d(first, 2)).relu()
    bottom = net.bottom(F.max_pool2d(second, 2)).relu()
    up = net.join2(torch.cat([net.up2(bottom), second], 1)).relu()
    up = net.join1(torch.cat([F.interpolate(up, scale_factor=2, mode="bilinear"), first], 1)).relu()
    return net.out(up)


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


def _vision_transformer(net: Any, x: Tensor) -> Tensor:
    tokens = net.patches(x).flatten(2).transpose(1, 2)
    tokens = torch.cat([net.token.expand(len(x), -1, -1), tokens], 1) + net.position
    for block in net.blocks:
        tokens = block(tokens)
    return net.head(tokens[:, 0])


def _shuffled(net: Any, x: Tensor) -> Tensor:
    """As ShuffleNet's: half the channels go through, and all are shuffled."""
    x = net.stem(x).relu()
    through, other = x.chunk(2, dim=1)
    x = torch.cat([through, net.depthwise(net.one(other).relu())], 1)
    n, c, h, w = x.shape
    return net.head(x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w).mean([2, 3]))


def _gated(net: Any, x: Tensor) -> Tensor:
    """Squeeze and excitation, and a layer scale."""
    x = net.stem(x).relu()
    gate = net.up(net.down(F.adaptive_avg_pool2d(x, 1)).relu()).sigmoid()
    return net.head((net.second(gate * x) * net.scale).mean((2, 3)))


def _stochastic_depth(net: Any, x: Tensor) -> Tensor:
    x = net.first(x).relu()
    keep = torch.empty([len(x), 1], dtype=x.dtype).fill_(1 / 0.9)
    return net.last(x + net.second(x) * keep)


def _residual(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x).relu()
    x = (net.norm(net.conv(x)) + x).relu_()
    return net.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Twofold(nn.Module):
    """Of two inputs and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 4), nn.Linear(5, 4)
        self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        hidden = self.first(x).relu() + self.second(y).relu()
        return {"one": self.one(hidden), "others": [self.two(hidden)]}


NETWORKS = {
    "mlp": Joined(
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.LeakyReLU(), nn.Linear(7, 3)),
        FLAT,
        ("0.weight", "2.weight"),
        ("4.weight",),
    ),
    "convolutions": Joined(
        lambda: nn.Sequential(
            conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), conv(4, 4, groups=4), conv(4, 6, groups=2),
            nn.ReLU(inplace=True), nn.ConvTranspose2d(6, 4, 2, 2, groups=2), nn.GroupNorm(2, 4), nn.PReLU(),
            nn.Flatten(), nn.Dropout(), nn.Identity(), nn.Linear(256, 3),
        ),
        IMAGES,
        ("1.weight", "4.weight", "5.weight", "8.weight"),
        ("0.weight", "7.weight"),
    ),
    "inception, pool branch first": Joined(
        lambda: Calls(
            _inception, stem=conv(3, 4), one=conv(4, 2, 1), one_two=conv(4, 3, 1), two=conv(3, 3), pooled=conv(4, 2, 1),
            head=nn.Linear(11, 3),
        ),
        IMAGES,
        ("stem.weight", "one.weight", "one_two.weight", "two.weight", "pooled.weight"),
    ),
    "u-net": Joined(
        lambda: Calls(
            _u_net, down1=conv(3, 4), down2=conv(4, 6), bottom=conv(6, 8), up2=nn.ConvTranspose2d(8, 6, 2, 2),
            join2=conv(12, 5), join1=conv(9, 4), out=conv(4, 2, 1),
        ),
        IMAGES,
        ("down1.weight", "down2.weight", "bottom.weight", "up2.weight", "join2.weight", "join1.weight"),
        ("out.weight",),
    ),
    "residual": Joined(
        lambda: Calls(_residual, stem=conv(3, 4), conv=conv(4, 4), norm=nn.BatchNorm2d(4), head=nn.Linear(4, 3)),
        IMAGES,
        ("stem.weight", "norm.weight"),
        ("conv.weight",),
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
    "vision transformer": Joined(
        lambda: Calls(
            _vision_transformer, patches=nn.Conv2d(3, 8, 4, 4), token=weight(1, 1, 8), position=weight(1, 5, 8),
            blocks=nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)]), head=nn.Linear(8, 3),
        ),
        IMAGES,
        ("blocks.0.linear1.weight", "blocks.0.self_attn.in_proj_weight"),
        ("patches.weight",),
    ),
    "shuffled": Joined(
        lambda: Calls(
            _shuffled, stem=conv(3, 8), one=conv(4, 4, 1), depthwise=conv(4, 4, groups=4), head=nn.Linear(8, 3)
        ),
        IMAGES,
        ("stem.weight", "one.weight", "depthwise.weight"),
    ),
    "gated": Joined(
        lambda: Calls(
            _gated, stem=conv(3, 4), down=nn.Conv2d(4, 2, 1), up=nn.Conv2d(2, 4, 1), second=conv(4, 5),
            scale=weight(5, 1, 1), head=nn.Linear(5, 3),
        ),
        IMAGES,
        ("stem.weight", "down.weight", "second.weight", "scale"),
        ("up.weight",),
    ),
    "stochastic depth": Joined(
        lambda: Calls(_stochastic_depth, first=nn.Linear(6, 5), second=nn.Linear(5, 5), last=nn.Linear(5, 3)),
        FLAT,
        ("first.weight", "second.weight"),
    ),
    "padded": Joined(
        lambda: Calls(
            lambda n, x: n.head((F.pad(n.first(x), (1, 1, 1, 1, 1, 2)) + n.second(x)).relu().mean((2, 3))),
            first=conv(3, 4), second=nn.Conv2d(3, 7, 3, padding=2), head=nn.Linear(7, 3),
        ),
        IMAGES,
        ("first.weight", "second.weight"),
    ),
    "rolled, stacked, flipped": Joined(
        lambda: Calls(
            lambda n, x: n.head(torch.stack([n.first(x).roll(1, 2), n.second(x).flip(3)]).sum(0).flatten(1)),
            first=conv(3, 4), second=conv(3, 4), head=nn.Linear(256, 3),
        ),
        IMAGES,
        ("first.weight", "second.weight"),
    ),
    "unbatched": Joined(
        lambda: Calls(
            lambda n, x: n.head(n.conv(x).relu().flatten()), conv=conv(3, 4), head=nn.Linear(256, 3)
        ),
        ((3, 8, 8),),
        ("conv.weight",),
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
