"""From pairs to an effect, its interval and a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from experiments.claims.ledger import Line
from experiments.claims.sides import FIRST, SECOND
from experiments.figures.intervals import CONFIDENCE, mean_interval

FEWEST = 3
"""Pairs below which nothing is decided."""

HOLDS, FAILS, UNDECIDED, NOT_MEASURED = "holds", "does not hold", "undecided", "not measured"
MEAN, RANGE, SLOPE = "95 % t", "range", "95 % slope"


@dataclass(frozen=True)
class Verdict:
    """An effect with its interval, and what follows. ``interval`` says how it was found; see ARCHITECTURE.md."""

    verdict: str
    n: int = 0
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    interval: str = ""
    reason: str = ""


def judge(line: Line, pairs: pd.DataFrame) -> Verdict:
    """The verdict on a line.

    Args:
        line: the comparison and its rule.
        pairs: the values of the sides, see :class:`experiments.claims.sides.Pairs`; for a growth also its variable.

    Returns:
        a relative effect as ``first / second - 1``, an absolute one as ``first - second``.
    """
    first = pairs[FIRST].to_numpy(float)
    second = np.full(len(first), float(line.value)) if line.value is not None else pairs[SECOND].to_numpy(float)
    n = len(first)
    finite = np.isfinite(first) & np.isfinite(second)
    if not finite.all():
        return Verdict(UNDECIDED, n, reason=f"{(~finite).sum()} of the values are not finite")
    logarithmic = line.unit == "relative" or bool(line.growth)
    compared = [first] if line.growth and line.second is None else [first, second]
    if logarithmic and min(values.min() for values in compared) <= 0:
        return Verdict(UNDECIDED, n, reason="a value that is not positive has no ratio")
    if n < FEWEST:
        effect = float("nan") if line.growth else float(_effects(line, first, second).mean())
        return Verdict(UNDECIDED, n, _known(effect), reason=f"fewer than {FEWEST} pairs")
    if line.growth:
        effect, low, high = growth(line, pairs[line.growth].to_numpy(float), first, second)
        return Verdict(decide(line.direction, line.smallest, low, high), n, effect, low, high, SLOPE)
    if line.rule != "mean":
        effects = _effects(line, first, second)
        low, high = float(effects.min()), float(effects.max())
        met = [decide(line.direction, line.smallest, effect, effect) == HOLDS for effect in effects]
        verdict = HOLDS if (all(met) if line.rule == "every" else any(met)) else FAILS
        return Verdict(verdict, n, float(effects.mean()), low, high, RANGE)
    values = np.log(first) - np.log(second) if line.unit == "relative" else first - second
    effect, low, high = mean_interval(values)
    if line.unit == "relative":
        effect, low, high = math.expm1(effect), math.expm1(low), math.expm1(high)
    return Verdict(decide(line.direction, line.smallest, low, high), n, effect, low, high, MEAN)


def _effects(line: Line, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first / second - 1 if line.unit == "relative" else first - second


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def growth(line: Line, variable: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """The exponent with which ``first`` (or its ratio to the other side) grows with a variable, less ``value``.

    The slope of the logarithms by least squares; its interval is that of Student's t for its standard error.
    """
    other = np.log(second) if line.second is not None else 0.0
    fit = stats.linregress(np.log(variable), np.log(first) - other)
    offset = line.value or 0.0
    if fit.stderr == 0:
        low = high = float(fit.slope)
    else:
        low, high = stats.t.interval(CONFIDENCE, len(first) - 2, loc=fit.slope, scale=fit.stderr)
    return float(fit.slope) - offset, float(low) - offset, float(high) - offset


def decide(direction: str, smallest: float, low: float, high: float) -> str:
    """The verdict on an interval of effects.

    ``lower``: holds if the whole interval is at or below ``-smallest``, does not hold if it is above, undecided if it
    reaches over. ``higher`` is the same with the sign reversed, and ``not lower``, ``not higher`` their opposites.
    ``equal``: holds if the whole interval is within ``smallest`` of 0, does not hold if it is outside; ``different`` is
    its opposite, with the bound counted as different.
    """
    if direction.startswith("not "):
        return {HOLDS: FAILS, FAILS: HOLDS}.get(found := decide(direction[4:], smallest, low, high), found)
    if direction == "equal":
        if -smallest <= low and high <= smallest:
            return HOLDS
        return FAILS if low > smallest or high < -smallest else UNDECIDED
    if direction == "different":
        if low >= smallest or high <= -smallest:
            return HOLDS
        return FAILS if -smallest < low and high < smallest else UNDECIDED
    low, high = (-high, -low) if direction == "lower" else (low, high)
    if low >= smallest and (smallest > 0 or low > 0):
        return HOLDS
    return FAILS if high < smallest or (smallest == 0 and high <= 0) else UNDECIDED
