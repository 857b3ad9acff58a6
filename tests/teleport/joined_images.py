"""Convolutional networks whose channels are joined in every way that a rule knows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.teleport.joined import Joined
from tests.teleport.networks import Calls, weight

IMAGES = ((2, 3, 8, 8),)


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


def _residual(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x).relu()
    x = (net.norm(net.conv(x)) + x).relu_()
    return net.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


IMAGE_NETWORKS = {
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
}  # fmt: skip
