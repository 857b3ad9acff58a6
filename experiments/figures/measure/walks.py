"""Three ways to move on a level set, on the smallest network that has room for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from experiments.figures.runs import FigureRun
from experiments.run.methods import Teleporter
from teleport import LevelSet, NullSpace, Symmetry

START = {"v": 0.6, "a": 1.2, "b": 0.3}
TARGET = 2.0
MOST_STEPS = 100


def measure_walks(
    run: FigureRun | None, *, rhos: Sequence[float], relative_cap: float = 2.0, lr: float = 0.02
) -> pd.DataFrame:
    """Teleports of ``y = a s(v x) + b`` with loss ``(y - t)^2`` on the one sample x = 1, t = 2, from the same start.

    s is a leaky ReLU. The group action (corrected) and the linearised level set move (v, a), b held fixed; the null
    space moves (a, b), and v, its first layer, stays. The norm is over what is not held fixed. A row's state is that of
    a teleport of so many steps from the start, all with nothing undone.

    Args:
        run: none.
        rhos: the longest steps of the linearised level set, a walk each.
        relative_cap: the gradient norm at which walks end, as a factor on that at the start.
        lr: of the other two.

    Returns:
        rows ``method`` (``symmetry``, ``levelset`` or ``nullspace``), ``rho`` (of the level set), ``step``, ``v``,
        ``a``, ``b``, ``loss``, ``gradient_norm``; ``target`` is t.
    """
    ending: dict[str, Any] = {"relative_cap": relative_cap, "guard": "none"}
    methods: list[tuple[str, float | None, Callable[..., Teleporter]]] = [
        ("symmetry", None, partial(Symmetry, "corrected", lr=lr, **ending)),
        *(("levelset", rho, partial(LevelSet, lr=rho, **ending)) for rho in rhos),
        ("nullspace", None, partial(NullSpace, lr=lr, **ending)),
    ]
    model, batch = network(), (torch.ones(1, 1).double(), torch.full((1, 1), TARGET).double())
    rows = []
    for method, rho, make in methods:
        model[2].bias.requires_grad_(method == "nullspace")
        for steps in range(MOST_STEPS + 1):
            set_to_start(model)
            report = make(steps=steps)(model, [batch], loss_fn)
            if report.steps < steps:  # it stopped by itself
                break
            place = dict(zip("vab", (parameter.item() for parameter in model.parameters()), strict=True))
            reached = {"loss": report.loss_after, "gradient_norm": report.gradient_norm_after, "target": TARGET}
            rows.append({"method": method, "rho": rho, "step": steps, **place, **reached})
    return pd.DataFrame(rows)


def network() -> nn.Sequential:
    """``y = a s(v x) + b`` in double precision."""
    return nn.Sequential(nn.Linear(1, 1, bias=False), nn.LeakyReLU(0.1), nn.Linear(1, 1)).double()


@torch.no_grad()
def set_to_start(model: nn.Module) -> None:
    """Put the parameters v, a and b where every walk starts."""
    for parameter, value in zip(model.parameters(), START.values(), strict=True):
        parameter.fill_(value)


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The squared error on the one sample."""
    return (model(batch[0]) - batch[1]).square().mean()
