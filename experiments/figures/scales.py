"""The scale of panels that share an axis, and what is marked on their curves once it is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from experiments.figures.panels import Curve, Drawn, Quantity

SQUEEZED = 0.4
"""A first value that leaves the others less than this share of an axis is left outside of it."""
RATIO = 3.0
"""An axis whose ends have at least this ratio is logarithmic."""
FEW_TICKS = 12.0
"""A logarithmic axis whose ends have less than this ratio has more ticks per decade."""


def finish(line: Sequence[Drawn], quantity: Quantity) -> bool:
    """Scale the panels that share the axis of ``quantity``, and mark teleports and divergence.

    The axis of a loss is logarithmic if it spans much. A curve that diverges leaves the panel: the upper limit is at
    most three times the highest initial value.

    Returns:
        whether initial values are above the panels.
    """
    curves = [curve for drawn in line for curve in drawn.curves]
    cut = False
    for drawn in line:
        drawn.axes.margins(x=0.03)
    if curves:
        low, high, cut = _limits(curves) if quantity.loss else (*_extent(curves, 0), False)
        log = quantity.loss and low > 0 and high / low >= RATIO
        for drawn in line:
            _scale(drawn.axes, log, fine=low * FEW_TICKS > high)
        line[0].axes.set_ylim(*_with_margins(low, high, log))
        for drawn in line:
            _marks(drawn, log)
    return cut


def _extent(curves: Sequence[Curve], first: int) -> tuple[float, float]:
    """The smallest and the largest value of all seeds, from evaluation ``first`` on."""
    low = [value for curve in curves for value in curve.low[first:] if np.isfinite(value)]
    high = [value for curve in curves for value in curve.high[first:] if np.isfinite(value)]
    return (min(low), max(high)) if low else (math.nan, math.nan)


def _limits(curves: Sequence[Curve]) -> tuple[float, float, bool]:
    """The ends of the axis of a loss, and whether the values before the first step are outside."""
    start = max(curve.high[0] for curve in curves)
    low, high = _extent(curves, 1)
    if math.isnan(low):
        return *_extent(curves, 0), False
    few = max(len(curve.x) for curve in curves) < 3  # then a line to the first value is all that there is
    most = 3 * max(curve.mean[0] for curve in curves)
    if high > most:  # the scale is that of the curves that stay
        staying = [curve for curve in curves if np.nanmax(curve.mean) <= most]
        high = min(max(_extent(staying, 1)[1], start) * 1.1, most) if staying else most
    whole = min(low, *(curve.low[0] for curve in curves)), max(high, start)
    if few or low <= 0 or math.log(high / low) >= SQUEEZED * math.log(whole[1] / whole[0]):
        return *whole, False
    return low, high, True


def _scale(axes: Axes, log: bool, fine: bool) -> None:
    if log:
        axes.set_yscale("log", nonpositive="clip")
        subs = (1.0, 2.0, 3.0, 5.0, 7.0) if fine else (1.0, 2.0, 5.0)
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.get_major_formatter().set_useOffset(False)


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
