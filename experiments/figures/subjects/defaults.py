"""What a null-space teleport of default settings does to networks that others wrote."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.axes import Axes

from experiments.figures import page, style
from experiments.figures.runs import FigureRun
from experiments.figures.subjects.coverage import built, of_each

if TYPE_CHECKING:
    from torch import Tensor, nn

LOSSES = {"on_batch": "its own batch", "told": "the event's batches, as reported", "drift": "a batch it does not see"}


def measure_defaults(
    run: FigureRun | None, *, names: Sequence[str], side: int = 64, samples: int = 4, seed: int = 0
) -> pd.DataFrame:
    """One event of ``teleport.NullSpace()`` on two batches per network.

    Weights are random (see :func:`~experiments.figures.unchanged_outputs.replace_constants`), images are noise.

    Args:
        run: none.
        names: of torchvision's classification models.
        side: of the square images; architectures that do not accept it get larger ones.
        samples: per batch.
        seed: of weights and images.

    Returns:
        rows ``arch``, ``parameters``, ``side``, ``layers`` and ``moved`` of them, ``accepted``, ``why`` nothing moved,
        ``norm_before`` and ``norm_after`` (mean gradient norm of the batches), ``on_batch`` (the largest relative
        change of a batch's loss by its own move), ``told`` (the drift that the report tells), ``drift`` (the relative
        change of the loss on a batch that the event does not see) and ``seconds``. A network that cannot be teleported
        has the ``reason``.
    """
    return of_each(names, lambda name: [_row(name, side, samples, seed)])


def _row(name: str, side: int, samples: int, seed: int) -> dict[str, Any]:
    import torch

    from experiments.figures.unchanged_outputs import replace_constants
    from teleport import NullSpace

    torch.manual_seed(seed)
    model, side = built(name, side)
    images = torch.randn(3, samples, 3, side, side)
    replace_constants(model, images[0])
    batches = [(each, torch.randint(1000, (samples,))) for each in images]
    loss_fn = _cross_entropy()
    before = _value(model, batches[2], loss_fn)
    start = time.perf_counter()
    report = NullSpace()(model, batches[:2], loss_fn)
    seconds = time.perf_counter() - start
    after = _value(model, batches[2], loss_fn)
    return {
        "arch": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "side": side,
        "layers": sum(layer.kind != "parameter" for layer in report.layers),
        "moved": sum(layer.relative_change > 0 for layer in report.layers),
        "accepted": report.accepted,
        "why": "" if report.accepted and report.steps else report.batches[0].reason or report.batches[0].stopped.value,
        "norm_before": report.gradient_norm_before,
        "norm_after": report.gradient_norm_after,
        "on_batch": max(abs(each.loss_after / each.loss_before - 1) for each in report.batches),
        "told": report.drift,
        "drift": after / before - 1,
        "seconds": seconds,
    }


def _cross_entropy() -> Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor]:
    from torch.nn import functional

    return lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1])


def _value(model: nn.Module, batch: Any, loss_fn: Callable[[nn.Module, Any], Tensor]) -> float:
    import torch

    with torch.no_grad():
        return float(loss_fn(model, batch))


ROW = 0.135  # inches
LEAST = 1e-8
TOLERANCE = 1e-3


def draw_defaults(table: pd.DataFrame, title: str) -> page.Page:
    """One row per network: the growth of the gradient norm, and the relative changes of the losses.

    Args:
        table: rows of :func:`measure_defaults`.
        title: of the whole picture.
    """
    networks = list(table["arch"])
    figure = page.start(title, 0.4 + ROW * len(networks))
    growth, losses = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.6))
    rows, places = table[table["reason"] == ""], {name: place for place, name in enumerate(networks)}
    y = [places[name] for name in rows["arch"]]
    ratio = rows["norm_after"] / rows["norm_before"]
    growth.plot(ratio, y, linestyle="", marker="o", markersize=3, color=style.PALETTE[0])
    growth.set_xlim(0.95, 2.1)
    for bound in (1.0, 2.0):
        growth.axvline(bound, color=style.GRAY, linestyle=":", linewidth=0.8)
    growth.set_xlabel("gradient norm after / before")
    for (column, name), marker, color in zip(LOSSES.items(), "osD", style.PALETTE[:3], strict=True):
        changes = rows[column].abs().clip(lower=LEAST)
        losses.plot(changes, y, linestyle="", marker=marker, markersize=2.5, color=color, label=name)
    _say_failures(growth, table, places)
    losses.axvline(TOLERANCE, color=style.GRAY, linestyle=":", linewidth=0.8)
    losses.set_xscale("log")
    losses.set_xlabel("|change of the loss| / loss")
    growth.set_yticks(range(len(networks)), networks, fontsize=5.5)
    growth.set_ylim(len(networks) - 0.5, -0.5)
    for axes in (growth, losses):
        axes.tick_params(axis="y", length=0)
    page.legend(figure, losses.get_legend_handles_labels()[0])
    still = rows[rows["moved"] == 0]
    notes = ["random weights, images of noise", f"changes below {LEAST:g} are drawn there"]
    notes += ["dotted: left no growth and its bound, right the tolerance"]
    notes += [f"{row.arch} does not move ({row.why})" for row in still.itertuples()]
    page.footnote(figure, table, "; ".join(notes))
    return figure


def _say_failures(axes: Axes, table: pd.DataFrame, places: dict[str, int]) -> None:
    for row in table[table["reason"] != ""].itertuples():
        axes.text(1.0, places[row.arch], textwrap.shorten(row.reason, 90), va="center", fontsize=4)
