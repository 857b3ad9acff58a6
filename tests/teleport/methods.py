"""Every teleport method with its guarantees, and the problems to test it on. A new method needs a row in ``ROWS``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import teleport
from teleport import (
    Balance,
    ChangeOfBasis,
    LevelSet,
    NullSpace,
    Orbit,
    PseudoTeleport,
    RandomNullSpace,
    Rescaling,
    Symmetry,
)

Teleporter = Callable[..., teleport.TeleportReport]
LossFn = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class Row:
    """A method with settings with which it moves on these problems, and its guarantees.

    Attributes:
        make: the method, guarded and with ``relative_cap`` where it has such arguments.
        keeps: how far a batch's loss may move, relative to ``max(1, |loss|)``, in double precision.
        may_fall: whether the loss may fall by more than that.
        raises_norm: whether the gradient norm does not fall.
        relative_cap: what the gradient norm must stay below, relative to the one before.
        guarded: whether it promises to keep the loss at all.
    """

    name: str
    make: Callable[[], Teleporter]
    keeps: float
    may_fall: bool = False
    raises_norm: bool = True
    relative_cap: float = math.inf
    guarded: bool = True

    def __str__(self) -> str:
        return self.name


def scale_units(theta: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the first hidden layer's units scaled by ``exp(theta)``; a leaky ReLU preserves the factors."""
    factors = theta.exp()
    return {
        "0.weight": factors[:, None] * weights["0.weight"],
        "0.bias": factors * weights["0.bias"],
        "2.weight": weights["2.weight"] / factors,
    }


def inter_teleport() -> Teleporter:
    return ChangeOfBasis(0.9, "inter", activations="teleport")


ROWS = [
    Row("nullspace", lambda: NullSpace(lr=1.0, relative_cap=3.0), keeps=1e-10, relative_cap=3.0),
    Row("random", lambda: RandomNullSpace(relative_cap=3.0), keeps=1e-10, raises_norm=False, relative_cap=3.0),
    Row("levelset", lambda: LevelSet(relative_cap=3.0), keeps=1e-3, may_fall=True, relative_cap=3.0),
    Row("rescaling", lambda: Rescaling(relative_cap=3.0), keeps=1e-10, relative_cap=3.0),
    Row("balance", Balance, keeps=1e-10, raises_norm=False),
    Row("change of basis", ChangeOfBasis, keeps=1e-10, raises_norm=False),
    Row("change of basis, teleported", inter_teleport, keeps=1e-10, raises_norm=False),
    Row("pseudo-teleportation", PseudoTeleport, keeps=math.inf, raises_norm=False, guarded=False),
    Row("symmetry", lambda: Symmetry("corrected", lr=0.01, step="cap", relative_cap=3.0, guard="transaction"), 1e-8),
    Row("orbit", lambda: Orbit(scale_units, shape=(24,), relative_cap=3.0), keeps=1e-10, relative_cap=3.0),
]
"""At least one row per method."""


@dataclass(frozen=True)
class Problem:
    """A LeakyReLU network whose layers are wider than a batch, with a loss."""

    name: str
    loss: Callable[[Tensor, Tensor], Tensor]
    targets: Callable[[int], Tensor]

    def __str__(self) -> str:
        return self.name

    def loss_fn(self, model: nn.Module, batch: Any) -> Tensor:
        return self.loss(model(batch[0]), batch[1])

    def make(self, dtype: torch.dtype = torch.float64, batches: int = 1) -> tuple[nn.Module, list[Any]]:
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Linear(6, 24), nn.LeakyReLU(0.1), nn.Linear(24, 24), nn.LeakyReLU(0.1), nn.Linear(24, 3)
        ).to(dtype)
        drawn = [(torch.randn(5, 6).to(dtype), self.targets(5)) for _ in range(batches)]
        return model, [(x, y.to(dtype) if y.is_floating_point() else y) for x, y in drawn]


PROBLEMS = [
    Problem("classes", F.cross_entropy, lambda n: torch.arange(n) % 3),
    Problem("regression", F.mse_loss, lambda n: torch.linspace(-1, 1, 3 * n).reshape(n, 3)),
]
CLASSES = PROBLEMS[0]

on_every_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=str)
every_method = pytest.mark.parametrize("row", ROWS, ids=str)


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def unchanged(model: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def after_it(model: nn.Module, report: teleport.TeleportReport) -> nn.Module:
    """The model to use after the teleport."""
    return report.model if isinstance(report, teleport.ChangeOfBasisReport) else model


def module_of(name: str) -> str:
    """The name without its last part: the report of a weight includes the bias that moves with it."""
    return name.removesuffix(".weight").removesuffix(".bias")


def gradient_norm(model: nn.Module, problem: Problem, batch: Any) -> float:
    gradients = torch.autograd.grad(problem.loss_fn(model, batch), list(model.parameters()))
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
