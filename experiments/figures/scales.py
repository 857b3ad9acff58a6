"""The scale of panels that share an axis, and what is marked on their curves once it is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from experiments.figures.panels import Curve, Drawn, Quantity, Remarks

SQUEEZED = 0.4
"""First values that leave the others less than this share of an axis are left outside of it."""
RATIO = 3.0
"""An axis whose ends have at least this ratio is logarithmic."""
FEW_TICKS = 12.0
"""A logarithmic axis whose ends have less than this ratio has more ticks per decade."""
ALIKE = 0.012
"""Lines nowhere farther apart than this share of a panel are drawn on each other."""


def finish(line: Sequence[Drawn], quantity: Quantity, remarks: Remarks) -> None:
    """Scale the panels that share the axis of ``quantity``, and mark teleports and divergence.

    The axis of a loss is logarithmic if it spans much. A curve that diverges leaves the panel: the upper limit is at
    most three times the highest initial value. What is outside of a panel, and which lines lie on each other, is added
    to ``remarks``.
    """
    curves = [curve for drawn in line for curve in drawn.curves]
    for drawn in line:
        drawn.axes.margins(x=0.03)
    if curves:
        low, high, outside = _limits(curves) if quantity.loss else (*_extent(curves), "")
        log = quantity.loss and low > 0 and high / low >= RATIO
        for drawn in line:
            if log:
                logarithmic(drawn.axes, low, high)
            else:
                drawn.axes.yaxis.set_major_locator(MaxNLocator(5))
                drawn.axes.yaxis.get_major_formatter().set_useOffset(False)
        line[0].axes.set_ylim(*_with_margins(low, high, log))
        for drawn in line:
            _marks(drawn, log)
            _remark(drawn, remarks, log)
            if outside:
                remarks.add(outside, drawn.where, drawn.kind)


def _extent(curves: Sequence[Curve], first: Callable[[Curve], int] = lambda _: 0) -> tuple[float, float]:
    """The smallest and the largest value of all seeds, from the evaluation of the number ``first`` on."""
    low = [value for curve in curves for value in curve.low[first(curve) :] if np.isfinite(value)]
    high = [value for curve in curves for value in curve.high[first(curve) :] if np.isfinite(value)]
    return (min(low), max(high)) if low else (math.nan, math.nan)


CUTS: dict[str, Callable[[Curve], int]] = {
    "the loss before the first step is above the panel": lambda _: 1,
    "losses of the first epoch are above the panel": lambda curve: curve.early,
}
"""What may be outside of a panel, in words -> the number of evaluations that are."""


def _limits(curves: Sequence[Curve]) -> tuple[float, float, str]:
    """The ends of the axis of a loss, and which of the first values are outside."""
    start = max(curve.high[0] for curve in curves)
    low, high = _extent(curves, lambda _: 1)
    if math.isnan(low):
        return *_extent(curves), ""
    most = 3 * max(curve.mean[0] for curve in curves)
    top = high
    if high > most:  # the scale is that of the curves that stay
        staying = [curve for curve in curves if np.nanmax(curve.mean) <= most]
        top = min(max(_extent(staying, lambda _: 1)[1], start) * 1.1, most) if staying else most
    shown, outside = (min(low, *(curve.low[0] for curve in curves)), max(top, start)), ""
    for words, first in CUTS.items():
        few = max(len(curve.x) - first(curve) for curve in curves) < 2  # then a line to them is all that there is
        low, high = _extent(curves, first)
        if few or math.isnan(low) or min(low, shown[0]) <= 0:
            continue
        high = min(high, top)
        if math.log(high / low) < SQUEEZED * math.log(shown[1] / shown[0]):
            shown, outside = (low, high), words
    return *shown, outside


def logarithmic(axes: Axes, low: float, high: float) -> None:
    """Make the vertical axis logarithmic, with plain numbers at enough ticks for its ends ``low`` and ``high``."""
    axes.set_yscale("log", nonpositive="clip")
    if high < low * RATIO:  # steps of equal length, as on a linear axis
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        subs = (1.0, 2.0, 3.0, 5.0, 7.0) if high < low * FEW_TICKS else (1.0, 2.0, 5.0)
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _with_margins(low: float, high: float, log: bool) -> tuple[float, float]:
    if log:
        margin = (high / low) ** 0.06
        return low / margin, high * margin
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _marks(drawn: Drawn, log: bool) -> None:
    """A triangle on the curve at each teleport, hollow if it was a no-op; a cross where a seed diverged next.

    What is outside of the panel is marked at its edge.
    """
    low, high = drawn.axes.get_ylim()

    def mark(marker: str, at: float, height: float, **look: Any) -> None:
        inside = float(f"{min(max(height, low), high):.10g}")  # the last bits of logarithms differ between processors
        drawn.axes.plot(at, inside, marker, markeredgewidth=0.8, zorder=4, clip_on=False, **look)

    for look, curve, teleports in drawn.lines:
        for _, event in teleports.groupby("step"):
            at = event[drawn.x].mean()
            if log:  # on the straight line between evaluations
                height = math.exp(np.interp(at, curve.x, np.log(curve.mean)))
            else:
                height = np.interp(at, curve.x, curve.mean)
            face = look.color if event["moved_layers"].sum() > 0 else "white"
            mark("v", at, height, markersize=3.4, color=look.color, mfc=face)
        if curve.diverged:
            mark("x", curve.x[curve.last], curve.mean[curve.last], markersize=5, color=look.color)


def _remark(drawn: Drawn, remarks: Remarks, log: bool) -> None:
    """Say which lines leave the panel, and which lie on each other, unless they do as their teleports moved nothing."""
    low, high = drawn.axes.get_ylim()
    ends = sorted(drawn.axes.get_xlim())

    def height(curve: Curve) -> np.ndarray:
        values, bottom, top = (np.log(each) if log else each for each in (curve.mean, low, high))
        return np.clip((values - bottom) / (top - bottom), 0.0, 1.0)

    for number, (look, curve, teleports) in enumerate(drawn.lines):
        if (curve.mean[curve.early :] > high).any():
            remarks.add(f"{look.label} goes above the panel", drawn.where, drawn.kind)
        if len(teleports) and teleports["moved_layers"].sum() == 0:
            continue
        for upper, other, _ in drawn.lines[number + 1 :]:
            if curve.x.shape != other.x.shape or len(curve.x) < 3:
                continue
            aside = np.abs(curve.x - other.x) / (ends[1] - ends[0])
            above = np.abs(height(curve) - height(other))
            if (aside < ALIKE).all() and (above < ALIKE).all():  # nan, of a line that ends, is not
                remarks.add(f"{look.label} hidden under {upper.label}", drawn.where, drawn.kind)
                break
