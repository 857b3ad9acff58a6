"""Trainings after one ascent of the gradient norm along the orbit, by the group that ascends.

The question is that of Zhao et al. 2022: does a larger gradient at the same function lead lower? By factors of channels
as before, by general matrices per head, by both, and without.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.axes import Axes

from experiments.figures import page, style
from experiments.figures.arms import Arms
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

ARMS = Arms("moved_by", LINES, {"scaling": "factors", "general": "matrices", "all": "both"})


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
    ARMS.check("ascent", rows)
    rates = sorted(rows["rate"].unique())
    figure = page.start(title, 1.9)
    *panels, dots = figure.subplots(1, len(rates) + 1)
    for axes, rate in zip(panels, rates, strict=True):
        ARMS.curves(axes, rows[rows["rate"] == rate], "step", "loss", shade=0.12)
        axes.set_title(f"rate {rate:g}")
        axes.set_xlabel("step")
    if panels:
        panels[0].set_ylabel("training loss")
    if len(failed):
        page.no_result(dots, failed)
    _reach(dots, rows)
    page.legend(figure, ARMS.handles(LINES))
    grown = rows.loc[rows["moved_by"] != "none", "growth"].max()
    told = (
        f"mean and 95 % interval over {rows['seed'].nunique()} seeds; moves end at {grown:.2g} times the norm at most"
    )
    page.footnote(figure, table, told)
    return figure


def _reach(axes: Axes, rows: pd.DataFrame) -> None:
    for place, name in enumerate(ARMS.words):
        ARMS.dot(axes, name, place, rows[rows["moved_by"] == name].groupby("seed")["reach"].first())
    axes.set_xticks(range(len(ARMS.words)), list(ARMS.words.values()), fontsize=6)
    axes.set_xlim(-0.5, len(ARMS.words) - 0.5)
    axes.set_title("growth of the norm without a cap")
