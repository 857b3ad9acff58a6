"""Random losses, and the batches and outputs that they take."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[nn.Module, Any], Tensor]


@dataclass
class Output:
    """What some models return."""

    logits: Tensor
    hidden: tuple[Tensor, ...] = ()


class Returning(nn.Module):
    """A network with a head, whose result is a tensor, or has it among others."""

    def __init__(self, body: nn.Module, form: str) -> None:
        super().__init__()
        self.body, self.form = body, form

    def forward(self, x: Any) -> Any:
        """The outputs ``[n, k]``, in the form that was asked for."""
        y = self.body(x)
        if self.form == "tuple":
            return y, y.mean()
        if self.form == "dict":
            return {"logits": y, "note": "text", "half": 0.5 * y}
        if self.form == "object":
            return Output(y, (y.relu(),))
        return y


def outputs_in(result: Any) -> Tensor:
    """The outputs ``[n, k]`` of a :class:`Returning`."""
    if isinstance(result, Tensor):
        return result
    if isinstance(result, tuple):
        return result[0]
    return result["logits"] if isinstance(result, dict) else result.logits


class Pooled(nn.Module):
    """``[n, c]`` of any kind of value."""

    def __init__(self, kind: str, how: str) -> None:
        super().__init__()
        self.kind, self.how = kind, how

    def forward(self, x: Tensor) -> Tensor:
        """The means, the largest values, or one position."""
        if self.kind == "vector":
            return x
        axes = {"sequence": (1,), "signal": (2,), "image": (2, 3)}[self.kind]
        if self.how == "max":
            return x.amax(axes)
        if self.how == "first":
            return x[:, 0] if self.kind == "sequence" else x.flatten(2)[..., 0]
        return x.mean(axes)


ELEMENTWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "huber": F.huber_loss,
    "l1": F.l1_loss,
    "log cosh": lambda y, t: (y - t).cosh().log().mean(),
    "sum of squares": lambda y, t: (y - t).square().sum(),
    "logits": lambda y, t: F.binary_cross_entropy_with_logits(y, (t > 0).to(y.dtype)),
    "hinge": lambda y, t: (1 - y * t.sign()).clamp(min=0).mean(),
    "gaussian": lambda y, t: -torch.distributions.Normal(t, 1.0 + y.sigmoid(), validate_args=False).log_prob(y).mean(),
    "cross entropy": lambda y, t: F.cross_entropy(y, t[:, 0].abs().mul(2).long() % max(1, y.shape[1])),
    "soft targets": lambda y, t: F.cross_entropy(y, t.softmax(-1)),
    "nll": lambda y, t: F.nll_loss(y.log_softmax(-1), t[:, 0].abs().mul(2).long() % max(1, y.shape[1])),
    "zero one": lambda y, t: (y * 0 + t).square().mean(),
    "constant": lambda y, t: 0 * y.sum() + 3,
    "kl": lambda y, t: F.kl_div(y.log_softmax(-1), t.log_softmax(-1), log_target=True, reduction="batchmean"),
    "large": lambda y, t: 1e6 * F.mse_loss(y, t),
    "one element": lambda y, t: F.mse_loss(y, t).reshape(1, 1),
}

SMALLEST = {"mse", "huber", "cross entropy", "sum of squares", "logits"}
"""Kinds of losses that are drawn more often, as most methods move under them."""


def draw_loss(draws: random.Random) -> tuple[str, Loss]:
    """A loss with its name; some read parameters, the mode or gradients as well."""
    name = draws.choice([*ELEMENTWISE, *SMALLEST, *SMALLEST])
    elementwise = ELEMENTWISE[name]
    extra = draws.choice(["", "", "", "", "", "decay", "penalty", "autocast", "augmented"])

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        x, t = batch
        if extra == "augmented" and x.is_floating_point():
            x = x + 0.1 * torch.rand_like(x)
        with torch.autocast("cpu", torch.bfloat16, enabled=extra == "autocast"):
            y = outputs_in(model(x))
        loss = elementwise(y.float() if extra == "autocast" else y, t)
        if extra == "decay":
            loss = loss + 1e-2 * sum(p.abs().square().sum() for p in model.parameters() if p.is_floating_point())
        if extra == "penalty":
            at = next((p for p in model.parameters() if p.requires_grad), None)
            (slope,) = torch.autograd.grad(loss, [at], create_graph=True, allow_unused=True)
            loss = loss if slope is None else loss + 0.1 * slope.abs().square().sum()
        return loss

    return f"{name}{', ' * bool(extra)}{extra}", loss_fn


@dataclass(frozen=True)
class Batches:
    """Random batches of one kind: inputs of a shape, and targets ``[n, k]``.

    Attributes:
        shape: of an input without its rows; of tokens ``[t]``.
        tokens: how many there are, 0 for real numbers.
        targets: k.
        dtype: of inputs and targets.
    """

    shape: tuple[int, ...]
    tokens: int
    targets: int
    dtype: torch.dtype

    def draw(self, rows: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """A batch."""
        t = torch.randn(rows, self.targets).to(self.dtype)
        if self.tokens:
            return torch.randint(self.tokens, (rows, *self.shape)), t
        return (scale * torch.randn(rows, *self.shape)).to(self.dtype), t

    def several(self, count: int, rows: Callable[[], int], scale: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches, each with its own number of rows."""
        for _ in range(count):
            yield self.draw(rows(), scale)
