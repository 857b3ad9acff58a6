"""Ascent trajectories of three methods on the level set of a network with three parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from experiments.figures import page, style
from experiments.figures.runs import FigureRun

if TYPE_CHECKING:
    from torch import Tensor, nn

    from experiments.run.methods import Teleporter

START = {"v": 0.6, "a": 1.2, "b": 0.3}
TARGET = 2.0
MOST_STEPS = 100


def measure_walks(
    run: FigureRun | None, *, rhos: Sequence[float], relative_cap: float = 2.0, lr: float = 0.02
) -> pd.DataFrame:
    """Teleports of ``y = a s(v x) + b`` with loss ``(y - t)^2`` on the one sample x = 1, t = 2, from the same start.

    s is a leaky ReLU. The group action (corrected) and the linearised level set move (v, a), with b held fixed; the
    null-space method moves (a, b), since v is the first layer. The gradient norm is over the parameters that are not
    held fixed. The state of a row is that of one teleport of ``step`` steps from the start, without a guard.

    Args:
        run: none.
        rhos: the longest steps of the linearised level set, one trajectory for each.
        relative_cap: the gradient norm at which trajectories end, as a multiple of the initial one.
        lr: of the other two methods.

    Returns:
        rows ``method`` (``symmetry``, ``levelset`` or ``nullspace``), ``rho`` (of the level set), ``step``, ``v``,
        ``a``, ``b``, ``loss``, ``gradient_norm``; ``target`` is t.
    """
    import torch

    from teleport import LevelSet, NullSpace, Symmetry

    ending: dict[str, Any] = {"lr_unit": "absolute", "relative_cap": relative_cap, "guard": "none"}
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
            if report.steps < steps:  # the cap ended the trajectory
                break
            place = dict(zip("vab", (parameter.item() for parameter in model.parameters()), strict=True))
            reached = {"loss": report.loss_after, "gradient_norm": report.gradient_norm_after, "target": TARGET}
            rows.append({"method": method, "rho": rho, "step": steps, **place, **reached})
    return pd.DataFrame(rows)


def network() -> nn.Sequential:
    """``y = a s(v x) + b`` in double precision."""
    from torch import nn

    return nn.Sequential(nn.Linear(1, 1, bias=False), nn.LeakyReLU(0.1), nn.Linear(1, 1)).double()


def set_to_start(model: nn.Module) -> None:
    """Set the parameters v, a and b to their common initial values."""
    import torch

    with torch.no_grad():
        for parameter, value in zip(model.parameters(), START.values(), strict=True):
            parameter.fill_(value)


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The squared error on the one sample."""
    return (model(batch[0]) - batch[1]).square().mean()


PLANES = {"symmetry": ("v", "a"), "levelset": ("v", "a"), "nullspace": ("b", "a")}
TITLES = {"symmetry": "group action", "levelset": "linearised level set", "nullspace": "null space"}
COLORS = dict(zip(PLANES, (style.PALETTE[2], style.PALETTE[1], style.PALETTE[0]), strict=True))
RESOLUTION = 1e-16
"""Smaller relative changes of the loss are drawn at this value."""


def loss_of(v: Any, a: Any, b: Any, target: float) -> Any:
    """``(a v + b - t)^2``, the network's loss for positive v; elementwise."""
    return (a * v + b - target) ** 2


def draw_walks(table: pd.DataFrame, title: str) -> page.Page:
    """One panel per method, with its steps on the level sets of the loss; and the change of the loss against the norm.

    Args:
        table: rows of :func:`measure_walks`.
        title: of the whole picture.
    """
    figure = page.start(title, 2.2)
    *planes, cost = figure.subplots(1, 4)
    handles = []
    for axes, (method, (across, up)) in zip(planes, PLANES.items(), strict=True):
        rows = table[table["method"] == method]
        for number, (rho, trajectory) in enumerate(rows.groupby("rho", dropna=False)):
            marker, line = (("o", "-"), ("s", "--"))[number % 2]
            look = {"color": COLORS[method], "linestyle": line, "linewidth": 1.0, "marker": marker, "markersize": 2.2}
            name = TITLES[method] + (f", rho {rho:g}" if pd.notna(rho) else "")
            handles.append(Line2D([], [], label=name, **look))
            axes.plot(trajectory[across], trajectory[up], **look, zorder=3)
            growth = trajectory["gradient_norm"] / trajectory["gradient_norm"].iloc[0]
            change = (trajectory["loss"] / trajectory["loss"].iloc[0] - 1).abs().clip(lower=RESOLUTION)
            cost.plot(growth, change, **look)
        _level_sets(axes, rows, across, up)
        axes.set_title(TITLES[method])
        axes.set_xlabel(across)
        axes.set_ylabel(up, rotation=0, labelpad=6)
    cost.set_yscale("log")
    cost.xaxis.set_major_locator(MaxNLocator(4))
    cost.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    cost.set_xlabel("gradient norm")
    cost.set_title("relative change of loss")
    page.legend(figure, handles)
    page.footnote(
        figure,
        table,
        "y = a s(v x) + b with a leaky ReLU s, squared error on one sample, float64; dots are steps, all from one "
        "start, whose level set is bold; b is held fixed in the first two panels, and in the third v stays by itself",
    )
    return figure


def _level_sets(axes: Axes, rows: pd.DataFrame, across: str, up: str) -> None:
    """Level sets of the loss in the plane of two parameters; that of the start is bold."""
    start = rows.iloc[0]
    axes.margins(0.15)
    limits = axes.get_xlim(), axes.get_ylim()
    x, y = np.meshgrid(*(np.linspace(*limit, 200) for limit in limits))
    place = {name: start[name] for name in "vab"} | {across: x, up: y}
    value = loss_of(**place, target=start["target"])
    here = loss_of(*(start[name] for name in "vab"), target=start["target"])
    others = here * np.array([0.25, 0.5, 0.75, 1.25, 1.5, 2.0])
    axes.contour(x, y, value, levels=others, colors="#CCCCCC", linewidths=0.5, zorder=1)
    axes.contour(x, y, value, levels=[here], colors=style.GRAY, linewidths=2.0, zorder=1, alpha=0.6)
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.grid(False)
