"""The picture of a run: its loss curves."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from pathlib import Path

from experiments import files
from experiments.run.records import Records


def draw_curve(path: Path, records: Records, title: str, note: str) -> None:
    """Training and test loss per epoch and per second, teleports as grey lines, no-ops labelled, ``note`` below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curve, events = records.tables["curve"], records.tables["teleport_events"]
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    by_epoch, by_second = figure.subplots(1, 2, sharey=True)
    for axes, unit, moment in ((by_epoch, "epoch", "epoch"), (by_second, "seconds", "started")):
        for event in events:
            axes.axvline(event[moment], color="0.75", linewidth=0.8, linestyle=":" if event["no_op"] else "-")
        for split, style in (("train", "-"), ("test", "--")):
            values = [row[f"{split}_loss"] for row in curve]
            axes.plot([row[unit] for row in curve], values, style, marker=".", label=split)
        axes.set_xlabel(unit)
    losses = [row[f"{split}_loss"] for row in curve for split in ("train", "test")]
    if spans_decades(losses):
        by_epoch.set_yscale("log")
    by_epoch.set_ylabel("loss")
    by_epoch.legend(frameon=False)
    if events and all(event["no_op"] for event in events):
        title += "  (no-op: the teleports moved nothing)"
    if records.diverged_step is not None:
        title += f"  (diverged at step {records.diverged_step})"
    figure.suptitle(title, fontsize=9)
    if note:
        figure.supxlabel(note, fontsize=7, wrap=True)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    files.write_bytes(path, image.getvalue())


def spans_decades(losses: Iterable[float | None]) -> bool:
    """Whether a logarithmic axis shows ``losses`` better: all are positive, and the largest is ten times the smallest.

    Losses that are not finite are not shown.
    """
    finite = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    return bool(finite) and min(finite) > 0 and max(finite) >= 10 * min(finite)
