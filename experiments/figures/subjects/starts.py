"""Trainings from elements of one orbit: the same function in other coordinates, by the optimizer.

Gradients turn with the coordinates under permutations and rotations, and steps of an optimizer do if it treats all
directions alike. So permuted starts must train alike with every optimizer here, rotated heads with all but those that
divide by roots of squares per element; a balanced start may train otherwise with each.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from experiments.errors import UserError
from experiments.figures import page, style
from experiments.figures.arms import Arms
from experiments.figures.runs import FigureRun

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from experiments.figures.rebuilt import RebuiltRun

LINES = {
    "original": ("as initialised", style.GRAY, "-"),
    "permuted": ("permuted", style.PALETTE[0], "-"),
    "heads": ("heads rotated", style.PALETTE[1], "--"),
    "stream": ("residual stream and heads rotated", style.PALETTE[2], "-."),
    "balanced": ("balanced", "#000000", ":"),
}
"""Start -> words of the legend, color and style."""

ARMS = Arms("start", LINES)

OPTIMIZERS = {"sgd": "SGD", "adamw": "AdamW", "muon": "Muon on matrices, SGD on the rest"}
"""Optimizer -> title of its panel."""

FLOOR = 1e-17
"""Deviations that are smaller are drawn here: a logarithmic axis has no 0."""


def measure_starts(run: FigureRun, *, rates: Mapping[str, float], steps: int, every: int, samples: int) -> pd.DataFrame:
    """Train the network of a run in double precision from its initial weights and from other elements of their orbit.

    Args:
        run: of no epochs.
        rates: optimizer (one of :data:`OPTIMIZERS`) -> its learning rate.
        steps: of a training, with the run's batch size; the batches are the same for all starts and optimizers.
        every: steps between evaluations.
        samples: of the training split, for the evaluations.

    Returns:
        rows ``start`` (of :data:`LINES`, without those at which nothing moved), ``optimizer_here``, ``step``, ``loss``
        on the samples, ``deviation`` (of the loss from that of the original start at this step, relative to it) and
        ``moved``, the largest relative change of a parameter by the move.

    Raises:
        UserError: an unknown optimizer.
    """
    import torch

    from experiments.figures.rebuilt import rebuild

    if strange := set(rates) - set(OPTIMIZERS):
        shown = ", ".join(OPTIMIZERS)
        raise UserError(f"the measure 'starts' has an unknown optimizer '{min(strange)}'; choose from {shown}")
    rebuilt = rebuild(run)
    rebuilt.model.double()
    batch = rebuilt.teleport_batch(samples, torch.float64)
    starts = [(name, *moved(rebuilt, name, batch)) for name in LINES]
    rows = []
    for optimizer, rate in rates.items():
        losses: dict[str, list[tuple[int, float]]] = {}
        for name, start, change in starts:
            if change == 0 and name != "original":
                continue
            losses[name] = list(_training(rebuilt, copy.deepcopy(start), batch, optimizer, rate, steps, every))
            for (step, loss), (_, first) in zip(losses[name], losses["original"], strict=True):
                told = {"start": name, "optimizer_here": optimizer, "step": step, "loss": loss, "moved": change}
                rows.append(told | {"deviation": abs(loss / first - 1)})
    return pd.DataFrame(rows)


def moved(rebuilt: RebuiltRun, start: str, batch: Any) -> tuple[nn.Module, float]:
    """A network on the orbit of the initial one, and the largest relative change of a parameter."""
    from teleport import Balance, ChangeOfBasis

    model = copy.deepcopy(rebuilt.model)
    seed = rebuilt.config.seed
    methods: dict[str, Any] = {
        "permuted": ChangeOfBasis(group="permutation", seed=seed, tolerance=1e-9),
        "heads": ChangeOfBasis(group="orthogonal", seed=seed, tolerance=1e-9),
        "stream": ChangeOfBasis(group="orthogonal", seed=seed, tolerance=1e-9, fold_norms=True),
        "balanced": Balance(),
    }
    if start == "original":
        return model, 0.0
    report = methods[start](model, [batch], rebuilt.loss_fn)
    if start == "stream" and not any("norm" in name for name in report.symmetries.folded):
        return model, 0.0  # without norms there is no other rotation than that of heads
    return model, report.relative_change


def _training(
    rebuilt: RebuiltRun, model: nn.Module, batch: Any, optimizer: str, rate: float, steps: int, every: int
) -> Iterator[tuple[int, float]]:
    """Step and loss on a batch, at every few steps of a training."""
    import torch

    optimizers = _optimizers(optimizer, model, rate)
    draws = torch.Generator().manual_seed(rebuilt.config.seed)
    train, size = rebuilt.task.train, rebuilt.config.data.batch_size
    for step in range(steps + 1):
        if step % every == 0:
            with torch.no_grad():
                yield step, rebuilt.loss_fn(model, batch).item()
        chosen = torch.randperm(len(train), generator=draws)[:size]
        inputs, targets = train.batch(chosen.to(rebuilt.device))
        model.zero_grad()
        rebuilt.loss_fn(model, (inputs.double(), targets)).backward()
        for each in optimizers:
            each.step()


def _optimizers(name: str, model: nn.Module, rate: float) -> Sequence[Optimizer]:
    """The optimizers that step together, at torch's defaults but for the rate."""
    from torch import optim

    parameters = list(model.parameters())
    if name == "sgd":
        return [optim.SGD(parameters, lr=rate)]
    if name == "adamw":
        return [optim.AdamW(parameters, lr=rate)]
    matrices, rest = ([each for each in parameters if (each.dim() == 2) is flat] for flat in (True, False))
    return [optim.Muon(matrices, lr=rate), optim.SGD(rest, lr=rate)]


def draw_starts(table: pd.DataFrame, title: str) -> page.Page:
    """One row per network, one panel per optimizer: how far the loss is from that of the original start, by step.

    Args:
        table: rows of :func:`measure_starts`.
        title: of the whole picture.

    Raises:
        UserError: the table has another start than those of :data:`LINES`.
    """
    rows, failed = table[table["reason"] == ""], table[table["reason"] != ""]
    ARMS.check("starts", rows)
    other = rows[(rows["start"] != "original") & (rows["step"] > 0)]
    other = other.assign(deviation=other["deviation"].clip(lower=FLOOR))
    tasks = list(other.groupby(["data", "model"], sort=False))
    shown = [name for name in OPTIMIZERS if name in set(rows["optimizer_here"])] or list(OPTIMIZERS)
    figure = page.start(title, 0.2 + 1.6 * max(len(tasks), 1))
    grid = figure.subplots(max(len(tasks), 1), len(shown), squeeze=False, sharey=True)
    for ((data, model), here), panels in zip(tasks, grid, strict=False):
        for axes, name in zip(panels, shown, strict=True):
            ARMS.curves(axes, here[here["optimizer_here"] == name], "step", "deviation", above_zero=True)
            axes.set_yscale("log")
            axes.set_title(OPTIMIZERS[name], fontsize=7)
        words = f"{style.label(style.DATA, data)}, {style.label(style.MODELS, model)}"
        panels[0].set_ylabel(f"{words}:\ndeviation of the training loss", fontsize=6.5)
    for axes in grid[-1]:
        axes.set_xlabel("step")
    if len(failed):
        page.no_result(grid[0][0], failed)
    page.legend(figure, ARMS.handles(ARMS.known(other)))
    seeds = rows["seed"].nunique()
    page.footnote(
        figure, table, f"mean and 95 % interval over {seeds} seeds, relative to the original start; double precision"
    )
    return figure
