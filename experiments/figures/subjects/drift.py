"""How far each step of an optimizer goes along the orbit of the network's symmetries.

The question is that of Kunin et al. 2021: the loss is constant on the orbit and its gradient orthogonal to it, so that
gradient flow keeps what is conserved there; which optimizers do not?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.lines import Line2D

from experiments.errors import UserError
from experiments.figures import page, style
from experiments.figures.arms import Arms
from experiments.figures.runs import FigureRun

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

LINES = {
    "sgd": ("SGD", style.GRAY, "-"),
    "momentum": ("SGD with momentum", style.PALETTE[0], "-"),
    "adamw": ("AdamW", style.PALETTE[1], "-"),
    "muon": ("Muon on matrices, AdamW on the rest", "#000000", ":"),
}
"""Optimizer -> words of the legend, color and style."""

ARMS = Arms("optimizer_here", LINES)

PANELS = {
    "tangent": "component of a step\nalong the orbit",
    "total_drift": "drift of\nconserved quantities",
    "imbalance": "imbalance",
}
"""Measured column -> its name on an axis."""


def measure_drift(run: FigureRun, *, rates: Mapping[str, float], steps: int, samples: int) -> pd.DataFrame:
    """Train the network of a run from its initial weights in double precision, once per optimizer.

    Args:
        run: of no epochs.
        rates: optimizer (one of :data:`LINES`) -> its learning rate.
        steps: of each optimizer.
        samples: of each batch, drawn anew for each step, the same for all optimizers.

    Returns:
        rows ``optimizer_here``, the columns of ``teleport.OrbitStep``, ``loss`` before the step, and ``random``, the
        component along the orbit that a step in a random direction has.

    Raises:
        UserError: an unknown optimizer.
    """
    import torch

    from experiments.figures.rebuilt import rebuild
    from teleport import OrbitTracker

    frames = []
    for name, rate in rates.items():
        rebuilt = rebuild(run)
        model, train = rebuilt.model.double(), rebuilt.task.train
        optimizers = optimizers_of(name, model, rate)
        draws = torch.Generator().manual_seed(rebuilt.config.seed)
        tracker, losses = None, []
        for _ in range(steps):
            chosen = torch.randperm(len(train), generator=draws)[:samples]
            inputs, targets = train.batch(chosen.to(rebuilt.device))
            tracker = tracker or OrbitTracker(model, inputs.double())
            model.zero_grad()
            loss = rebuilt.task.loss(model(inputs.double()), targets)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            tracker.step()
            losses.append(loss.item())
        assert tracker is not None
        found = tracker.report()
        frames.append(found.to_frame().assign(optimizer_here=name, loss=losses, random=found.share))
    return pd.concat(frames, ignore_index=True)


def optimizers_of(name: str, model: nn.Module, rate: float) -> Sequence[Optimizer]:
    """The optimizers that step together, at torch's defaults but for the rate.

    Raises:
        UserError: an unknown name.
    """
    from torch import optim

    parameters = list(model.parameters())
    if name == "sgd":
        return [optim.SGD(parameters, lr=rate)]
    if name == "momentum":
        return [optim.SGD(parameters, lr=rate, momentum=0.9)]
    if name == "adamw":
        return [optim.AdamW(parameters, lr=rate)]
    if name == "muon":
        matrices, rest = (
            [each for each in parameters if each.dim() == 2],
            [each for each in parameters if each.dim() != 2],
        )
        return [optim.Muon(matrices, lr=rate), optim.AdamW(rest)]
    raise UserError(f"the measure 'drift' has an unknown optimizer '{name}'; choose from {', '.join(LINES)}")


def draw_drift(table: pd.DataFrame, title: str) -> page.Page:
    """One row per network: the component along the orbit, the drift and the imbalance, by step and optimizer.

    Args:
        table: rows of :func:`measure_drift`.
        title: of the whole picture.

    Raises:
        UserError: the table has another optimizer than those of :data:`LINES`.
    """
    rows, failed = table[table["reason"] == ""], table[table["reason"] != ""]
    ARMS.check("drift", rows)
    tasks = list(rows.groupby(["data", "model"], sort=False))
    figure = page.start(title, 0.2 + 1.5 * max(len(tasks), 1))
    grid = figure.subplots(max(len(tasks), 1), len(PANELS), squeeze=False)
    for ((data, model), here), panels in zip(tasks, grid, strict=False):
        for axes, (column, words) in zip(panels, PANELS.items(), strict=True):
            ARMS.curves(axes, here, "step", column, above_zero=True)
            if column != "imbalance":
                axes.set_yscale("log")
            axes.set_ylabel(words, fontsize=6.5)
        panels[0].axhline(here["random"].iloc[0], color=style.GRAY, linewidth=0.8, linestyle="--")
        panels[1].set_title(f"{style.label(style.DATA, data)}, {style.label(style.MODELS, model)}")
    for axes in grid[-1]:
        axes.set_xlabel("step")
    if len(failed):
        page.no_result(grid[0][0], failed)
    handles = ARMS.handles(ARMS.known(rows))
    page.legend(figure, [*handles, Line2D([], [], color=style.GRAY, linestyle="--", label="a random direction")])
    seeds = rows["seed"].nunique()
    told = (
        f"mean and 95 % interval over {seeds} seeds; drift: since the start; double precision, the same batches for "
        "all optimizers"
    )
    page.footnote(figure, table, told)
    return figure
