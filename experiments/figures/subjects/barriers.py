"""Loss barriers on the straight line between two trained networks, with and without teleports.

The barrier is how far the loss rises above the linear interpolation of the losses at the ends (Frankle et al. 2020;
Entezari et al. 2022). Networks are compared as they are: no permutation of channels is sought; ``matching`` does so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from experiments.figures import page, style
from experiments.figures.arms import Arms
from experiments.figures.runs import FigureRun, partner

if TYPE_CHECKING:
    from torch import nn

    from experiments.figures.rebuilt import RebuiltRun

SPLITS = ("train", "test")


def measure_barriers(run: FigureRun, *, points: int, samples: int, other_seed: int) -> pd.DataFrame:
    """Losses on the line from a network without teleports (alpha = 0) to that of ``run`` (alpha = 1).

    The network at alpha = 0 has the seed of ``run``, and thus its initial weights and batches. For a ``run`` without
    teleports it has another seed: such a pair is the reference for two basins.

    Args:
        run: trained; one of a seed from ``other_seed`` on is only the other end of a line and has no rows.
        points: alphas, evenly from 0 to 1.
        samples: of each split, for the losses; batch norms take their statistics from those of the training split.
        other_seed: added to the seed of a run without teleports for the other end of its line.

    Returns:
        rows ``alpha``, ``split`` (``train`` or ``test``), ``loss``, ``accuracy`` (of a task with classes), ``excess``
        (the loss less the linear interpolation of those at the ends, so that the barrier is its largest value), and
        ``distance`` (of the two networks' parameters relative to the norm of those at alpha = 0).

    Raises:
        UserError: the figure lacks the run at the other end, or it has no result.
    """
    if run.labels["seed"] >= other_seed:
        return pd.DataFrame()
    if run.labels["teleport"] == "none":
        other = partner(run, seed=run.labels["seed"] + other_seed)
    else:
        other = partner(run, teleport="none")
    from experiments.figures.rebuilt import rebuild

    ends = rebuild(other), rebuild(run)
    for each in ends:
        each.load_trained()
    alphas = np.linspace(0.0, 1.0, points)
    return along_line(ends[0], ends[0].model, ends[1].model, alphas, samples)


def along_line(
    rebuilt: RebuiltRun, first: nn.Module, second: nn.Module, alphas: np.ndarray, samples: int
) -> pd.DataFrame:
    """The rows of :func:`measure_barriers` for two networks of one task.

    Args:
        rebuilt: gives the task.
        first: the network at alpha = 0.
        second: the network at alpha = 1.
        alphas: from 0 to 1, both included.
        samples: of each split.
    """
    import torch

    from teleport._matching.line import Line

    splits = {}
    for name in SPLITS:
        split = getattr(rebuilt.task, name)
        splits[name] = split.batch(torch.arange(min(samples, len(split)), device=rebuilt.device))

    def evaluate(model: nn.Module) -> dict[str, dict[str, float]]:
        found = {}
        with torch.no_grad():
            for name, (inputs, targets) in splits.items():
                outputs = model(inputs)
                found[name] = {"loss": rebuilt.task.loss(outputs, targets).item()}
                if rebuilt.task.metric == "accuracy":
                    found[name]["accuracy"] = (outputs.argmax(1) == targets).float().mean().item()
        return found

    values = Line(first, second, [splits["train"][0]]).along(alphas.tolist(), evaluate)
    frames = [pd.DataFrame([each[name] for each in values]).assign(alpha=alphas, split=name) for name in SPLITS]
    for frame in frames:
        frame["excess"] = excess(alphas, frame["loss"].to_numpy(float))
    return pd.concat(frames, ignore_index=True).assign(distance=distance(first, second))


def excess(alphas: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """The losses less the linear interpolation of the first and the last of them."""
    from teleport._matching.line import excess as over

    return np.array(over(alphas.tolist(), losses.tolist()))


def distance(first: nn.Module, second: nn.Module) -> float:
    """The norm of the difference of all parameters, relative to that of the parameters of ``first``."""
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    difference = sum((a - b).detach().double().square().sum().item() for a, b in pairs)
    return float((difference / sum(a.detach().double().square().sum().item() for a, _ in pairs)) ** 0.5)


LINES = {
    "none": ("two seeds without teleports", style.GRAY, "--"),
    "nullspace": ("without and with null-space teleports", style.PALETTE[0], "-"),
    "random": ("without and with random null-space moves", "#000000", ":"),
}
METHODS = Arms("teleport", LINES, {"none": "two seeds", "nullspace": "null space", "random": "random"})


def draw_barriers(table: pd.DataFrame, title: str) -> page.Page:
    """One row per task: the excess of the loss along the line, on both splits, and the barriers.

    Args:
        table: rows of :func:`measure_barriers`.
        title: of the whole picture.

    Raises:
        UserError: the table has another method than those of :data:`LINES`.
    """
    rows = table[table["reason"] == ""]
    METHODS.check("barriers", rows)
    tasks = list(rows[["data", "model"]].drop_duplicates().itertuples(index=False, name=None))
    named = {
        f"{style.label(style.DATA, data)}, {style.label(style.MODELS, model)}": rows[
            (rows["data"] == data) & (rows["model"] == model)
        ]
        for data, model in tasks
    }
    return draw_arms(table, title, METHODS, named, "alpha, from the network without teleports (0)")


def draw_arms(table: pd.DataFrame, title: str, arms: Arms, tasks: Mapping[str, pd.DataFrame], along: str) -> page.Page:
    """One row per task: the excess of the loss along the line, on both splits, and the barriers.

    Args:
        table: the whole table, for failed runs and the footnote.
        title: of the whole picture.
        arms: which lines there are.
        tasks: name -> its rows.
        along: label of the horizontal axis.
    """
    rows, failed = table[table["reason"] == ""], table[table["reason"] != ""]
    figure = page.start(title, 0.2 + 1.5 * max(len(tasks), 1))
    panels = figure.subplots(max(len(tasks), 1), 3, squeeze=False, width_ratios=(1, 1, 0.8))
    for (name, here), (*lines, dots) in zip(tasks.items(), panels, strict=False):
        for axes, split in zip(lines, SPLITS, strict=True):
            arms.curves(axes, here[here["split"] == split], "alpha", "excess")
            axes.axhline(0.0, color=style.GRAY, linewidth=0.6)
        _barriers(dots, here, arms)
        lines[0].set_ylabel(f"{name}\nloss above the line", fontsize=6.5)
    for axes, name in zip(panels[0], ("training loss", "test loss", "barrier"), strict=True):
        axes.set_title(name)
    for axes in panels[-1][:2]:
        axes.set_xlabel(along, fontsize=6.5)
    if len(failed):
        page.no_result(panels[0][0], failed)
    page.legend(figure, arms.handles(arms.known(rows)))
    seeds = sorted({count for here in tasks.values() for count in here.groupby(arms.column)["seed"].nunique()})
    told = f"mean and 95 % interval over {' or '.join(map(str, seeds))} pairs of networks"
    page.footnote(figure, table, f"{told}; barrier: the largest loss above the line, filled: training, hollow: test")
    return figure


def _barriers(axes: Axes, rows: pd.DataFrame, arms: Arms) -> None:
    """The barriers of each line with their intervals; the highest of ``excess`` per pair."""
    known = arms.known(rows)
    for place, name in enumerate(known):
        for split, shift in zip(SPLITS, (-0.12, 0.12), strict=True):
            here = rows[(rows[arms.column] == name) & (rows["split"] == split)]
            face = arms.lines[name][1] if split == "train" else "white"
            highest = here.groupby("seed")["excess"].max()
            arms.dot(axes, name, place + shift, highest, mfc=face, markeredgewidth=0.8)
    axes.set_xticks(range(len(known)), [arms.words[name] for name in known], fontsize=6)
    axes.set_xlim(-0.5, max(len(known), 1) - 0.5)
    axes.axhline(0.0, color=style.GRAY, linewidth=0.6)
