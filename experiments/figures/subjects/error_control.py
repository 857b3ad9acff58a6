"""Error control: loss and gradient norm along the steps of a null-space teleport, one line per threshold."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pandas as pd
from matplotlib import colormaps
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.configuration.teleport_config import NullSpaceConfig
from experiments.errors import UserError
from experiments.figures import page, style
from experiments.figures.runs import FigureRun

MARKERS = "osD^vP"
RESOLUTION = 2.0**-24
"""Of a loss in single precision; smaller changes are drawn at this value."""


def measure_error_control(
    run: FigureRun, *, thresholds: Sequence[float], steps: int, lr: float | None = None
) -> pd.DataFrame:
    """Loss and gradient norm before each step of a teleport on one batch, and after the last.

    The ascent has the settings of the run's ``teleport``, except that it takes ``steps`` steps of full length without
    cap and guard, so that the error of each threshold is visible.

    Args:
        run: a run whose ``teleport`` is a null-space method; its final model is teleported.
        thresholds: tau, one teleport of the same model for each.
        steps: of the ascent.
        lr: eta_tel; ``None`` takes that of the run's ``teleport``.

    Returns:
        rows ``threshold``, ``step`` (0 is before the first), ``loss``, ``gradient_norm``.

    Raises:
        UserError: the run has no null-space teleport, or a setting is out of its range.
    """
    from experiments.figures.rebuilt import rebuild
    from experiments.run.methods import build_teleporter
    from teleport import NullSpace

    rebuilt = rebuild(run)
    settings = rebuilt.config.teleport
    if not isinstance(settings, NullSpaceConfig):
        raise UserError(f"the measure 'error_control' needs a run with teleport=nullspace, not {settings.name}")
    batch = rebuilt.teleport_batch(settings.samples)
    rows = []
    for threshold in thresholds:
        own = {"threshold": threshold, "steps": steps, "lr": settings.lr if lr is None else lr}
        teleporter = build_teleporter(
            dataclasses.replace(settings, **own, step="fixed", guard="none", cap=None, relative_cap=None)
        )
        assert isinstance(teleporter, NullSpace)
        traced = dataclasses.replace(teleporter, forward="each")  # which records the loss of each step
        rebuilt.load_trained()
        trace = traced(rebuilt.model, [batch], rebuilt.loss_fn).batches[0].trace
        rows += [{"threshold": threshold, **dataclasses.asdict(record)} for record in trace]
    return pd.DataFrame(rows)


def draw_error_control(table: pd.DataFrame, title: str) -> page.Page:
    """Relative to the start: the change of the loss by step, the growth of the gradient norm by step, one by the other.

    Args:
        table: rows of :func:`measure_error_control`.
        title: of the whole picture.
    """
    figure = page.start(title, 2.3)
    change, growth, cost = figure.subplots(1, 3)
    measured, failed = table[table["reason"] == ""], table[table["reason"] != ""]
    thresholds = sorted(measured["threshold"].unique(), reverse=True)
    colors = colormaps["viridis"]([0.9 * index / max(1, len(thresholds) - 1) for index in range(len(thresholds))])
    handles = []
    for color, marker, threshold in zip(colors, MARKERS * len(thresholds), thresholds, strict=False):
        rows = measured[measured["threshold"] == threshold].sort_values("step")
        # A wide pale line for the exact null space, below its approximations, which are often close to it.
        exact = {"linewidth": 4.0, "alpha": 0.45, "marker": ""}
        look = {"color": color, **(exact if threshold == 1.0 else {"linewidth": 1.0, "marker": marker})}
        look |= {"markersize": 2.6, "markevery": 2}
        changed = (rows["loss"] / rows["loss"].iloc[0] - 1).abs().clip(lower=RESOLUTION)
        grown = (rows["gradient_norm"] / rows["gradient_norm"].iloc[0] - 1).abs()
        later = rows["step"] > 0
        change.plot(rows["step"], changed, **look)
        growth.plot(rows["step"][later], grown[later], **look)
        cost.plot(grown[later], changed[later], **look)
        handles.append(Line2D([], [], **look, label=threshold_name(threshold)))
    for axes in (change, growth):
        axes.set_xlabel("teleport step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes, name in ((change, "relative change of the loss"), (growth, "relative growth of the norm")):
        axes.set_ylabel(name)
        axes.set_yscale("log")
    cost.set(xscale="log", yscale="log", xlabel="relative growth of the norm", ylabel="relative change of the loss")
    for axes in (change, cost):
        axes.axhline(RESOLUTION, color=style.GRAY, linestyle=":", linewidth=0.8)
    page.no_result(change, failed)
    if handles:
        page.legend(figure, [Line2D([], [], linestyle="", label="threshold"), *handles])
    what = "norm: of the gradient; one teleport batch, steps of full length, no cap, no guard"
    start = "" if measured.empty else "; before: loss {loss:.3g}, norm {gradient_norm:.3g}".format(**measured.iloc[0])
    page.footnote(figure, table, f"{what}; dotted: the resolution of a loss in float32{start}")
    return figure


def threshold_name(threshold: float) -> str:
    """``1`` as numerical rank, thresholds close to 1 by their distance from it, other thresholds as numbers."""
    if threshold == 1.0:
        return "1 (numerical rank)"
    return f"1 - {1 - threshold:.0e}".replace("e-0", "e-") if threshold > 0.99995 else f"{threshold:g}"
