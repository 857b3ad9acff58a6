"""Random networks of the operations that the rules know, as a hypothesis strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

Step = Callable[["RandomGraph", str, Tensor, Tensor, int], Tensor]


class RandomGraph(nn.Module):
    """Runs a program: each step takes two earlier values ``[2, c, 4, 4]`` and adds one; weights are made on the way.

    Attributes:
        program: a step's operation, its two arguments among the values so far, and a number of its own.
    """

    def __init__(self, program: list[tuple[str, int, int, int]]) -> None:
        super().__init__()
        self.program = program
        self.held = nn.ParameterDict()

    def parameter(self, name: str, *shape: int) -> nn.Parameter:
        if name not in self.held:
            self.held[name] = nn.Parameter(torch.randn(shape).double() / max(1, shape[-1]) ** 0.5)
        return self.held[name]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = [x]
        for step, (operation, first, second, number) in enumerate(self.program):
            one, other = (values[-1 - index % len(values)] for index in (first, second))
            made = STEPS[operation](self, f"{operation}{step}", one, other, number)
            # to about the same size, by what is no function of the weights
            values.append(made * 0.5)
        pooled = torch.cat([value.mean((2, 3)) for value in values[1:]], 1)
        return F.linear(pooled, self.parameter("head", 3, pooled.shape[1])), values[-1][:, :1].sigmoid()


def _conv(net: RandomGraph, name: str, x: Tensor, other: Tensor, number: int) -> Tensor:
    groups = 2 if number % 2 and x.shape[1] % 2 == 0 else 1
    weight = net.parameter(name, 2 + number % 3 * 2, x.shape[1] // groups, 3, 3)
    return F.conv2d(x, weight, net.parameter(f"{name}b", len(weight)), padding=1, groups=groups)


def _shared(net: RandomGraph, name: str, x: Tensor, other: Tensor, number: int) -> Tensor:
    weight = net.parameter(f"shared{x.shape[1]}", x.shape[1], x.shape[1], 1, 1)
    return F.conv2d(x, weight)


def _transposed(net: RandomGraph, name: str, x: Tensor, other: Tensor, number: int) -> Tensor:
    groups = 2 if number % 2 and x.shape[1] % 2 == 0 else 1
    return F.conv_transpose2d(x, net.parameter(name, x.shape[1], 2, 3, 3), padding=1, groups=groups)


def _depthwise(net: RandomGraph, name: str, x: Tensor, other: Tensor, number: int) -> Tensor:
    return F.conv2d(x, net.parameter(name, x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])


def _linear(net: RandomGraph, name: str, x: Tensor, other: Tensor, number: int) -> Tensor:
    weight = net.parameter(name, x.shape[1], 4)
    return (x.permute(0, 2, 3, 1) @ weight).permute(0, 3, 1, 2)


def _norm(net: RandomGraph, name: str, x: Tensor, other: Tensor, number: int) -> Tensor:
    scale, shift = net.parameter(name, x.shape[1]), net.parameter(f"{name}b", x.shape[1])
    if number % 2:
        return F.group_norm(x, 1, scale, shift)
    return F.layer_norm(x.movedim(1, -1), (x.shape[1],), scale, shift).movedim(-1, 1)


def _aligned(net: RandomGraph, name: str, x: Tensor, other: Tensor) -> Tensor:
    """The other value with as many channels as ``x``."""
    if x.shape[1] == other.shape[1]:
        return other
    return F.conv2d(other, net.parameter(f"{name}a", x.shape[1], other.shape[1], 1, 1))


def _add(net: RandomGraph, name: str, x: Tensor, other: Tensor, number: int) -> Tensor:
    other = _aligned(net, name, x, other)
    return [x + other, x - other, x.clone().add_(other), torch.maximum(x, other)][number % 4]


def _gate(net: RandomGraph, name: str, x: Tensor, other: Tensor, number: int) -> Tensor:
    gate = F.adaptive_avg_pool2d(_aligned(net, name, x, other), 1)
    return x * (gate.sigmoid() if number % 2 else gate)


def _parameter(net: RandomGraph, name: str, x: Tensor, other: Tensor, number: int) -> Tensor:
    channels: Tensor = net.parameter(name, x.shape[1])[:, None, None]
    if number % 4 > 1:
        channels = net.parameter(f"{name}c", x.shape[1], 1, 1)
    return x * channels if number % 2 else x + channels


def _attention(net: RandomGraph, name: str, x: Tensor, other: Tensor, number: int) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)  # [2, 16, c]
    query, key, value = F.linear(tokens, net.parameter(name, 12, x.shape[1])).chunk(3, -1)
    if number % 3 == 0:
        mixed = F.scaled_dot_product_attention(query, key, value)
    elif number % 3 == 1:
        mixed = (query @ key.mT).softmax(-1) @ value
    else:
        mixed = torch.einsum("bst,btd->bsd", torch.einsum("bsd,btd->bst", query, key).softmax(-1), value)
    return mixed.transpose(1, 2).reshape(2, 4, 4, 4)


def _activation(net: RandomGraph, name: str, x: Tensor, other: Tensor, number: int) -> Tensor:
    functions = [
        F.relu,
        F.leaky_relu,
        torch.tanh,
        F.gelu,
        torch.abs,
        F.relu6,
        lambda v: F.relu(v.clone(), inplace=True),
    ]
    return functions[number % len(functions)](x)


def _pool(net: RandomGraph, name: str, x: Tensor, other: Tensor, number: int) -> Tensor:
    pools = [
        lambda v: F.max_pool2d(v, 3, 1, 1),
        lambda v: F.avg_pool2d(v, 3, 1, 1),
        lambda v: F.interpolate(F.max_pool2d(v, 2), scale_factor=2),
        lambda v: v.mean((2, 3), keepdim=True).expand_as(v),
        lambda v: F.adaptive_max_pool2d(v, 4),
    ]
    return pools[number % len(pools)](x)


def _move(net: RandomGraph, name: str, x: Tensor, other: Tensor, number: int) -> Tensor:
    n, c, h, w = x.shape
    moves: list[Callable[[Any], Tensor]] = [
        lambda v: v.flip(1),
        lambda v: v.roll((1, 2), (1, 3)),
        lambda v: v.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w),
        lambda v: F.pad(v, (1, 0, 1, 0, 1, 1))[:, :, :4, :4],
        lambda v: v.transpose(2, 3),
        lambda v: torch.stack(v.unbind(1)[::-1], 1),
        lambda v: F.pad(v, (1, 1, 1, 1), mode="reflect")[..., 1:5, :4],
        lambda v: v[:, torch.arange(c).flip(0)],
    ]
    return moves[number % len(moves)](x)


def _cat(net: RandomGraph, name: str, x: Tensor, other: Tensor, number: int) -> Tensor:
    joined = torch.cat([x, other] if number % 2 else [other, x], 1)
    return joined[:, : joined.shape[1] // 2 * 2][:, :8]


STEPS: dict[str, Step] = {
    function.__name__[1:]: function
    for function in (
        *(_conv, _shared, _transposed, _depthwise, _linear, _norm, _add, _gate, _parameter, _attention, _activation),
        *(_pool, _move, _cat),
    )
}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[RandomGraph, Tensor]:
    """A network in double precision, and an input."""
    numbers = st.integers(0, 11)
    program = draw(
        st.lists(st.tuples(st.sampled_from(sorted(STEPS)), numbers, numbers, numbers), min_size=2, max_size=12)
    )
    torch.manual_seed(draw(st.integers(0, 2**16)))
    net, x = RandomGraph(program), torch.randn(2, 4, 4, 4).double()
    net(x)
    return net, x
