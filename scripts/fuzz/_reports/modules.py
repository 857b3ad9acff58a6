"""Modules of random networks that torch does not have: combinations, routers, and operations that are hard to trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, name: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.name = name
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """The function of ``x``."""
        return self.function(x)


class Residual(nn.Module):
    """``x + body(x)``, or with the sum written into the result of the body."""

    def __init__(self, body: nn.Module, in_place: bool = False) -> None:
        super().__init__()
        self.body = body
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        return (self.body(x) * 1).add_(x) if self.in_place else x + self.body(x)


class Concatenated(nn.Module):
    """Two branches, concatenated along an axis."""

    def __init__(self, one: nn.Module, other: nn.Module, axis: int) -> None:
        super().__init__()
        self.one, self.other, self.axis = one, other, axis

    def forward(self, x: Tensor) -> Tensor:
        """Both results."""
        return torch.cat([self.one(x), self.other(x)], self.axis)


class Gated(nn.Module):
    """``value(x) * sigmoid(gate(x))``."""

    def __init__(self, value: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.value, self.gate = value, gate

    def forward(self, x: Tensor) -> Tensor:
        """The gated value."""
        return self.value(x) * self.gate(x).sigmoid()


class Routed(nn.Module):
    """One of two branches, chosen by the number of rows, the mode of the module or the values of the batch."""

    def __init__(self, one: nn.Module, other: nn.Module, by: str) -> None:
        super().__init__()
        self.one, self.other, self.by = one, other, by

    def forward(self, x: Tensor) -> Tensor:
        """The result of the branches that are asked for."""
        if self.by == "rows":
            return self.one(x) if len(x) < 5 else self.other(x)
        if self.by == "training":
            return self.one(x) + self.other(x) if self.training else self.one(x)
        if self.by == "sum":
            return self.one(x) + (self.other(x) if len(x) > 5 else 0)
        mask = (x.detach().flatten(1).sum(1) > 1e6).reshape(-1, *[1] * (x.dim() - 1))
        return torch.where(mask, self.other(x), self.one(x)) if mask.any() else self.one(x)


class Repeated(nn.Module):
    """One module applied several times."""

    def __init__(self, body: nn.Module, times: int) -> None:
        super().__init__()
        self.body, self.times = body, times

    def forward(self, x: Tensor) -> Tensor:
        """The last result."""
        for _ in range(self.times):
            x = self.body(x)
        return x


class Checkpointed(nn.Module):
    """A module whose activations are computed again in the backward pass."""

    def __init__(self, body: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.body, self.reentrant = body, reentrant

    def forward(self, x: Tensor) -> Tensor:
        """The result of the module."""
        return checkpoint(self.body, x, use_reentrant=self.reentrant)


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return gradients[0] * weight, (gradients[0] * x).sum_to_size(weight.shape)


class _ScaledOnce(_Scaled):
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return _Scaled.backward(ctx, *gradients)


class CustomScale(nn.Module):
    """A factor per last axis, as a custom autograd function."""

    def __init__(self, channels: int, once: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels))
        self.function = _ScaledOnce if once else _Scaled

    def forward(self, x: Tensor) -> Tensor:
        """The scaled input."""
        return self.function.apply(x, self.weight)


class Packed(nn.Module):
    """Linear maps ``[c_in, c_out]`` out of one packed parameter, each used by one of the forms of a product."""

    def __init__(self, c_in: int, c_out: int, form: str) -> None:
        super().__init__()
        self.packed = nn.Parameter(torch.randn(2 * c_out, c_in) / max(1, c_in) ** 0.5)
        self.shift = nn.Parameter(torch.randn(c_out))
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        """One half of the packed map, with the shift."""
        weight = self.packed.chunk(2)[1]
        if self.form == "einsum":
            return torch.einsum("...i,oi->...o", x, weight) + self.shift
        if self.form == "matmul":
            return x @ weight.mT + self.shift
        if self.form == "func":
            return torch.vmap(lambda row: F.linear(row, weight, self.shift))(x)
        if self.form == "jvp":
            return torch.func.jvp(lambda at: F.linear(at, weight, self.shift), (x,), (x.tanh(),))[1]
        if self.form == "data":
            return F.linear(x, weight, self.shift) + F.linear(x, self.packed.data[: len(self.shift)])
        return F.linear(x, weight, self.shift)


class ComplexMap(nn.Module):
    """A complex linear map, as real numbers outside."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        """The moduli of the outputs."""
        product = F.linear(x.to(self.weight.dtype), self.weight)
        return (product.real.square() + product.imag.square() + 1e-3).sqrt().to(x.dtype)


class Attention(nn.Module):
    """Self-attention with packed projections and scaled_dot_product_attention, or by hand with a softmax."""

    def __init__(self, channels: int, by_hand: bool) -> None:
        super().__init__()
        self.project = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.by_hand = by_hand

    def forward(self, x: Tensor) -> Tensor:
        """``[n, t, c]`` of ``[n, t, c]``."""
        q, k, v = self.project(x).chunk(3, -1)
        if self.by_hand:
            return self.out(torch.softmax(q @ k.mT / max(1, q.shape[-1]) ** 0.5, -1) @ v)
        return self.out(F.scaled_dot_product_attention(q, k, v))


class First(nn.Module):
    """The first result of a module that returns several."""

    def __init__(self, body: nn.Module, times: int = 1) -> None:
        super().__init__()
        self.body, self.times = body, times

    def forward(self, x: Tensor) -> Tensor:
        """That result."""
        return self.body(*[x] * self.times)[0]


class Twice(nn.Module):
    """A module of two arguments that gets the same one twice."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Its result."""
        return self.body(x, x)


class Writing(nn.Module):
    """Counts its calls in a buffer and keeps its last output: state that no output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The input."""
        self.calls += 1
        self.last = x.detach().clone()
        return x


class Penalised(nn.Module):
    """The input plus the gradient of a product of it with a weight: a read below the torch functions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels) / max(1, channels) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """``x + d/dx sum tanh(W x)``."""
        with torch.enable_grad():
            at = x if x.requires_grad else x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(F.linear(at, self.weight).tanh().sum(), at, create_graph=True)
        return x + slope
