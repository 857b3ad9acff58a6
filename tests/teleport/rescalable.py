"""Random networks with free factors, as hypothesis strategies, and networks that preserve or pin a factor."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from teleport import TeleportReport
from tests.teleport.networks import CLASSES, Calls, cross_entropy

ACTIVATIONS = [nn.ReLU, lambda: nn.ReLU(inplace=True), lambda: nn.LeakyReLU(0.1), nn.Identity]


@st.composite
def mlps(draw: st.DrawFn) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A network of one to three hidden layers, with and without biases and dropout, and a batch."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    widths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=3))
    layers: list[nn.Module] = []
    fan_in = 5
    for width in widths:
        layers += [nn.Linear(fan_in, width, bias=draw(st.booleans())), draw(st.sampled_from(ACTIVATIONS))()]
        layers += [nn.Dropout(0.3)] * draw(st.integers(0, 1))
        fan_in = width
    return _with_batch(nn.Sequential(*layers, nn.Linear(fan_in, CLASSES)), 5)


@st.composite
def cnns(draw: st.DrawFn) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A network of one or two convolutions with pools or batch norms, flattened or averaged, and a batch."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    layers: list[nn.Module] = []
    fan_in, size = 2, 8
    for _ in range(draw(st.integers(1, 2))):
        width = draw(st.integers(1, 4))
        layers.append(nn.Conv2d(fan_in, width, 3, padding=1, stride=draw(st.integers(1, 2)), bias=draw(st.booleans())))
        layers += [nn.BatchNorm2d(width)] * draw(st.integers(0, 1))
        pool = draw(st.sampled_from([nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(3, 2, padding=1), nn.Identity()]))
        layers += [draw(st.sampled_from(ACTIVATIONS))(), pool]
        fan_in = width
    layers += draw(st.sampled_from([[nn.Flatten()], [nn.AdaptiveAvgPool2d(2), nn.Flatten()]]))
    features = nn.Sequential(*layers).eval()(torch.zeros(1, 2, size, size)).shape[1]
    return _with_batch(nn.Sequential(*layers, nn.Linear(features, CLASSES)), 2, size, size)


def _with_batch(model: nn.Module, *shape: int) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    for buffer in model.buffers():  # statistics other than the initial ones
        if buffer.is_floating_point():
            buffer.copy_(buffer + torch.rand_like(buffer))
    return model.double().eval(), (torch.randn(6, *shape).double(), torch.arange(6) % CLASSES)


def gradient_norm(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    gradients = torch.autograd.grad(cross_entropy(model, batch), list(model.parameters()), allow_unused=True)
    return math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients if gradient is not None))


def relative_error(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).detach().norm() / reference.detach().norm())


def mlp(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers[:-1]).double()


def factors_of(report: TeleportReport, parameter: nn.Parameter) -> Tensor:
    assert report.group is not None
    return report.group[parameter]


def flat_batch() -> tuple[Tensor, Tensor]:
    """For networks of five inputs."""
    return torch.randn(6, 5).double(), torch.arange(6) % CLASSES


def image_batch() -> tuple[Tensor, Tensor]:
    """For networks of 2 x 4 x 4 images."""
    return torch.randn(6, 2, 4, 4).double(), torch.arange(6) % CLASSES


class OwnFunction(torch.autograd.Function):
    """A function with a custom derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x + 1

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def hidden(forward: Any, **more: nn.Module) -> nn.Module:
    """A net of ``first: 5 -> 4``, ``middle: 4 -> 4`` and ``last: 4 -> classes``."""
    return Calls(
        forward, first=nn.Linear(5, 4), middle=nn.Linear(4, 4), last=nn.Linear(4, CLASSES), **more
    ).double()  # fmt: skip


# name -> (the network, the groups that are pinned, part of the reason, the groups that are scaled)
PINNED = {
    "tanh": (lambda: hidden(lambda n, x: n.last(n.middle(n.first(x).tanh()))), ["first"], "tanh", ["middle"]),
    "a constant added": (lambda: hidden(lambda n, x: n.last(n.middle(n.first(x) + 1))), ["first"], "add", ["middle"]),
    "in place": (lambda: hidden(lambda n, x: n.last(n.middle(n.first(x).add_(1)))), ["first"], "add_", ["middle"]),
    "a skip connection": (
        lambda: hidden(lambda n, x: n.last((h := n.first(x).relu()) + n.middle(h))),
        ["first", "middle"],
        "both the inputs and the outputs of one weight",
        [],
    ),
    "a shared weight": (
        lambda: hidden(lambda n, x: n.last(n.middle(n.middle(n.first(x)).relu()))),
        ["first", "middle"],
        "both the inputs and the outputs of one weight",
        [],
    ),
    "a penalty on the weights": (
        lambda: hidden(lambda n, x: n.last(n.middle(n.first(x))) + n.middle.weight.square().sum()),
        ["first"],
        "used in different ways",
        [],
    ),
    "hidden values in the loss": (
        lambda: hidden(lambda n, x: n.last(n.middle(h := n.first(x))) + h.square().mean()),
        ["first"],
        "square",
        ["middle"],
    ),
    "a custom autograd function": (
        lambda: hidden(lambda n, x: n.last(n.middle(OwnFunction.apply(n.first(x))))),
        ["first"],
        "add",
        ["middle"],
    ),
    "read as a Python number": (
        lambda: hidden(lambda n, x: n.last(n.middle(h := n.first(x))) * (1 + h.sum().item())),
        ["first"],
        "item",
        ["middle"],
    ),
    "scripted": (
        lambda: hidden(lambda n, x: n.last(n.act(n.middle(n.first(x)))), act=torch.jit.script(nn.Tanh())),
        ["middle"],
        "",
        ["first"],
    ),
    "gradient penalty": (
        lambda: hidden(lambda n, x: _with_input_gradient(n, x)),
        ["first", "middle"],
        "below the torch functions",
        [],
    ),
}


def spatial(forward: Any, channels: int = 4, **more: nn.Module) -> nn.Module:
    """A net of ``first``, a 3x3 convolution of 2 to 4 channels, and ``last`` from ``channels`` features."""
    return Calls(forward, first=nn.Conv2d(2, 4, 3, padding=1), last=nn.Linear(channels, CLASSES), **more).double()


# name -> (the network, whether it takes images); `first` is scaled in each
PRESERVED = {
    "concatenated": (
        lambda: hidden(
            lambda n, x: n.wide(torch.cat([n.first(x).relu(), x, n.middle(x[:, :4])], 1)), wide=nn.Linear(13, CLASSES)
        ),
        False,
    ),
    "split and concatenated": (
        lambda: hidden(lambda n, x: n.last(torch.cat(torch.chunk(n.middle(n.first(x)), 2, 1)[::-1], 1))),
        False,
    ),
    "some channels": (lambda: hidden(lambda n, x: n.some(n.first(x)[:, 1::2]), some=nn.Linear(2, CLASSES)), False),
    "a slice of a weight": (
        lambda: hidden(lambda n, x: n.last(F.linear(n.first(x)[:, :3], n.middle.weight[:, :3]))),
        False,
    ),
    "transposed": (lambda: hidden(lambda n, x: n.last(n.first(x) @ n.middle.weight.t())), False),
    "differently at different positions": (
        lambda: hidden(lambda n, x: n.last(n.middle(torch.cat([h := n.first(x), h.flip(1)])))[:6]),
        False,
    ),
    "indexed and stacked": (
        lambda: hidden(lambda n, x: n.last(torch.stack([n.middle(n.first(x)[:, [0, 1, 2, 3]])]).squeeze(0))),
        False,
    ),
    "added": (lambda: hidden(lambda n, x: n.last(n.first(x).relu() + n.other(x)), other=nn.Linear(5, 4)), False),
    "absolute": (lambda: hidden(lambda n, x: n.last(n.first(x).abs())), False),
    "unflattened": (
        lambda: hidden(lambda n, x: n.last(n.first(x).unflatten(1, (2, 2)).transpose(1, 2).reshape(6, 4))),
        False,
    ),
    "its shape read": (lambda: hidden(lambda n, x: n.last((h := n.first(x)).view(h.shape[0], h.size(-1)))), False),
    "mean over positions": (lambda: spatial(lambda n, x: n.last(n.first(x).relu().mean((2, 3)))), True),
    "last position": (lambda: spatial(lambda n, x: n.last(n.first(x)[:, :, -1, -1])), True),
    "pooled to one": (lambda: spatial(lambda n, x: n.last(F.adaptive_avg_pool2d(n.first(x), 1).flatten(1))), True),
    "by position": (lambda: spatial(lambda n, x: n.last(n.first(x).permute(0, 2, 3, 1)).sum((1, 2))), True),
    "one image at a time": (
        lambda: spatial(
            lambda n, x: n.last(torch.cat([F.max_pool2d(n.first(i), 4).flatten()[None] for i in x[:1]])).expand(
                6, CLASSES
            )
        ),
        True,
    ),
    "along one axis": (
        lambda: spatial(
            lambda n, x: n.last(F.max_pool1d(n.line(n.first(x).relu().flatten(2)), 2).flatten(1)),
            channels=24,
            line=nn.Conv1d(4, 3, 1),
        ),
        True,
    ),
}


def _with_input_gradient(net: Any, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    out = net.last(net.middle(net.first(x).relu()).relu())
    (gradient,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    return out + gradient.square().sum()
