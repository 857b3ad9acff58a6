"""Trainings after one ascent of the gradient norm along the orbit, by the group that ascends.

The question is that of Zhao et al. 2022: does a larger gradient at the same function lead lower? By factors of channels
as before, by general matrices per head, by both, and without.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.errors import UserError
from experiments.figures import page, style
from experiments.figures.intervals import mean_interval
from experiments.figures.runs import FigureRun

if TYPE_CHECKING:
    from torch import nn

    from experiments.figures.rebuilt import RebuiltRun

LINES = {
    "none": ("no move", style.GRAY, "--"),
    "scaling": ("factors", style.PALETTE[0], "-"),
    "general": ("matrices", style.PALETTE[1], "-"),
    "all": ("factors and matrices", "#000000", ":"),
}
"""Group -> words of the legend, color and style."""


def measure_ascent(
    run: FigureRun, *, rates: Sequence[float], steps: int, every: int, samples: int, growth: float
) -> pd.DataFrame:
    """Train the network of a run with SGD from its initial weights, moved once before the first step, per group.

    Args:
        run: of no epochs.
        rates: of SGD, one training each.
        steps: of a training, with the run's batch size; the batches are the same for all groups and rates.
        every: steps between evaluations.
        samples: of the training split, for the move and for the evaluations.
        growth: of the gradient norm by the move.

    Returns:
        rows ``moved_by`` (of :data:`LINES`), ``rate``, ``step``, ``loss`` on the samples, ``growth`` that was reached,
        ``reach`` (the growth without a cap, with 100 steps within the bound of the method) and ``difference`` (of the
        loss by the move).
    """
    from experiments.figures.rebuilt import rebuild

    rebuilt = rebuild(run)
    batch = rebuilt.teleport_batch(samples)
    frames = []
    for group in LINES:
        moved, told = _moved(rebuilt, group, batch, growth)
        for rate in rates:
            rows = pd.DataFrame(_training(rebuilt, copy.deepcopy(moved), batch, rate, steps, every))
            frames.append(rows.assign(moved_by=group, rate=rate, **told))
    return pd.concat(frames, ignore_index=True)


def _moved(rebuilt: RebuiltRun, group: str, batch: Any, growth: float) -> tuple[nn.Module, dict[str, float]]:
    """The network after a move, and what the move did."""
    from teleport import Rescaling

    model = copy.deepcopy(rebuilt.model)
    if group == "none":
        return model, {"growth": 1.0, "reach": 1.0, "difference": 0.0}
    far = Rescaling(group=group, relative_cap=None)(copy.deepcopy(model), [batch], rebuilt.loss_fn)  # type: ignore[arg-type]
    near = Rescaling(group=group, relative_cap=growth)(model, [batch], rebuilt.loss_fn)  # type: ignore[arg-type]
    norms = [each.gradient_norm_after / each.gradient_norm_before for each in (near, far)]
    return model, {"growth": norms[0], "reach": norms[1], "difference": near.loss_after - near.loss_before}


def _training(
    rebuilt: RebuiltRun, model: nn.Module, batch: Any, rate: float, steps: int, every: int
) -> Iterator[dict[str, float]]:
    """The loss on a batch at every few steps of a training."""
    import torch

    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    draws = torch.Generator().manual_seed(rebuilt.config.seed)
    train, size = rebuilt.task.train, rebuilt.config.data.batch_size
    for step in range(steps + 1):
        if step % every == 0:
            with torch.no_grad():
                yield {"step": step, "loss": rebuilt.loss_fn(model, batch).item()}
        chosen = torch.randperm(len(train), generator=draws)[:size]
        optimizer.zero_grad()
        rebuilt.loss_fn(model, train.batch(chosen.to(rebuilt.device))).backward()
        optimizer.step()


def draw_ascent(table: pd.DataFrame, title: str) -> page.Page:
    """The loss by step, a panel per rate, and how far the norm grows without a cap.

    Args:
        table: rows of :func:`measure_ascent`.
        title: of the whole picture.

    Raises:
        UserError: the table has another group than those of :data:`LINES`.
    """
    rows, failed = table[table["reason"] == ""], table[table["reason"] != ""]
    if strange := set(rows["moved_by"]) - set(LINES):
        raise UserError(f"the drawing 'ascent' shows {', '.join(LINES)}, but the table has '{min(strange)}'")
    rates = sorted(rows["rate"].unique())
    figure = page.start(title, 1.9)
    *panels, dots = figure.subplots(1, len(rates) + 1)
    for axes, rate in zip(panels, rates, strict=True):
        _curves(axes, rows[rows["rate"] == rate])
        axes.set_title(f"rate {rate:g}")
        axes.set_xlabel("step")
    if panels:
        panels[0].set_ylabel("training loss")
    if len(failed):
        page.no_result(dots, failed)
    _reach(dots, rows)
    handles = [Line2D([], [], color=color, linestyle=line, label=words) for words, color, line in LINES.values()]
    page.legend(figure, handles)
    grown = rows.loc[rows["moved_by"] != "none", "growth"].max()
    told = (
        f"mean and 95 % interval over {rows['seed'].nunique()} seeds; moves end at {grown:.2g} times the norm at most"
    )
    page.footnote(figure, table, told)
    return figure


def _curves(axes: Axes, rows: pd.DataFrame) -> None:
    for name, (_, color, line) in LINES.items():
        here = rows[rows["moved_by"] == name]
        if here.empty:
            continue
        steps = np.sort(here["step"].unique())
        found = np.array([mean_interval(values) for _, values in here.groupby("step")["loss"]])
        mean, low, high = np.vectorize(_rounded)(found.T)
        axes.plot(steps, mean, color=color, linestyle=line)
        if np.isfinite(low).all():
            axes.fill_between(steps, low, high, color=color, alpha=0.12, linewidth=0)


def _reach(axes: Axes, rows: pd.DataFrame) -> None:
    known = [name for name in LINES if name != "none"]
    for place, name in enumerate(known):
        mean, low, high = map(_rounded, mean_interval(rows[rows["moved_by"] == name].groupby("seed")["reach"].first()))
        color = LINES[name][1]
        if np.isfinite(low):
            axes.plot([place] * 2, [low, high], color=color, linewidth=0.9)
        axes.plot(place, mean, "o", color=color, markersize=3.2)
    axes.set_xticks(range(len(known)), ["factors", "matrices", "both"], fontsize=6)
    axes.set_xlim(-0.5, len(known) - 0.5)
    axes.set_title("growth of the norm without a cap")


def _rounded(value: float) -> float:
    """Without the last bits, which differ between processors."""
    return float(f"{value:.4g}")
