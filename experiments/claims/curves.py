"""Pairs of runs, compared at equal epochs or at equal seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims.ledger import EPOCHS, Line
from experiments.claims.sides import FEWEST_RATES, FIRST, SECOND, Pairs, select, why_none
from experiments.errors import UserError
from experiments.figures.table import refuse_mixed_hardware

NO_DIFFERENCE = ("equal", "not lower", "not higher")
"""Directions that a side whose teleports moved nothing would meet without a measurement."""


class MixedHardware(UserError):
    """Seconds of different hardware would be compared."""


def form(line: Line, table: pd.DataFrame) -> Pairs:
    """The pairs of a line about training curves: one per combination of the labels in ``pairs``.

    At equal epochs (or steps), the values of both runs there; ``last`` is the last epoch that both have. At equal
    seconds, the values when the second run is at that epoch (or both have time left, if the first ends before),
    interpolated between evaluations, in the logarithm if the effect is relative. A run that diverged has the value that
    it started from: it learnt nothing that lasts.

    Args:
        line: the comparison.
        table: of its figure, with rows of failed runs.

    Raises:
        UserError: several runs of a side have the same labels.
        MixedHardware: seconds were measured on different hardware.
    """
    sides: list[dict[Any, pd.DataFrame]] = []
    measured = table[table["reason"] == ""]
    keys = [*line.pairs, *line.average]
    chosen: list[pd.DataFrame] = []
    for wanted in (line.first, line.second or {}):
        wanted = {**line.average, **wanted, "event": "evaluation"}
        rows = select(measured, wanted)
        if reason := why_not(line, table, measured, rows, wanted):
            return Pairs(pd.DataFrame(), reason=reason)
        if line.best_over:
            rows = best(line, rows)
        chosen.append(rows)
        sides.append(runs(line, rows, keys))
    if line.at != EPOCHS:
        try:
            refuse_mixed_hardware(pd.concat(chosen))
        except UserError as error:
            raise MixedHardware(str(error)) from error
    first, second = sides
    rows_of_pairs, diverged = [], 0
    for key in first.keys() & second.keys():
        values = compared(line, first[key], second[key])
        if values is not None:
            rows_of_pairs.append((*key, *values))
            diverged += has_diverged(first[key]) + has_diverged(second[key])
    pairs = pd.DataFrame(sorted(rows_of_pairs, key=repr), columns=[*keys, FIRST, SECOND])
    missing = len(first.keys() | second.keys()) - len(pairs)
    if not len(pairs):
        return Pairs(pairs, missing, reason="no two runs that reach the place of comparison form a pair")
    return averaged(line, pairs, missing, diverged) if line.average else Pairs(pairs, missing, diverged)


def why_not(
    line: Line, table: pd.DataFrame, measured: pd.DataFrame, rows: pd.DataFrame, wanted: Mapping[str, Any]
) -> str:
    """Why the ``rows`` of a side, the ``wanted`` of those ``measured``, are no measurement; empty if they are one."""
    if not len(rows):
        return why_none(table, wanted)
    if line.direction in NO_DIFFERENCE and moved_nothing(measured, wanted):
        return f"no teleport of teleport={rows['teleport'].iloc[0]} moved anything"
    if line.best_over and (values := rows[line.best_over].nunique()) < FEWEST_RATES:
        return f"the table has {values} of at least {FEWEST_RATES} {line.best_over}"
    return ""


def moved_nothing(table: pd.DataFrame, wanted: Mapping[str, Any]) -> bool:
    """Whether the runs of a side were teleported, and none of the teleports moved a layer."""
    events = select(table, {**wanted, "event": "teleport"})
    return bool(len(events)) and not (pd.to_numeric(events["moved_layers"]) > 0).any()


def runs(line: Line, rows: pd.DataFrame, keys: list[str]) -> dict[Any, pd.DataFrame]:
    """The evaluations of each run by its labels, in order.

    Raises:
        UserError: several runs have the same labels.
    """
    found = {}
    for key, run in rows.groupby(keys, dropna=False):
        if run["run"].nunique() > 1:
            raise UserError(
                f"the claim '{line.id}' is ambiguous: several runs of '{line.figure}' have the same {', '.join(keys)}; "
                "add a column to 'pairs', to 'where' or to 'average'"
            )
        found[key] = run.sort_values("step")
    return found


def has_diverged(run: pd.DataFrame) -> bool:
    """Whether a run ends with a training loss that is not finite."""
    return not np.isfinite(pd.to_numeric(run["train_loss"], errors="coerce").to_numpy(float)[-1])


def compared(line: Line, first: pd.DataFrame, second: pd.DataFrame) -> tuple[float, float] | None:
    """The values of two runs at the place of comparison; ``None`` if one of them does not reach it."""
    by = "step" if line.step is not None else "epoch"
    place = line.step if line.step is not None else line.epoch
    if place == "last":
        ends = [run[by].max() for run in (first, second) if not has_diverged(run)]
        place = min(ends, default=0)
    if line.at == EPOCHS:
        other = place if line.second_epoch is None else line.second_epoch
        there = _value(line, first, by, place), _value(line, second, by, second[by].max() if other == "last" else other)
    else:
        time = min(_seconds(first, by, None), _seconds(second, by, place))
        there = _value(line, first, "seconds", time), _value(line, second, "seconds", time)
    values = [value for value in there if value is not None]
    return (values[0], values[1]) if len(values) == 2 else None


def _seconds(run: pd.DataFrame, by: str, place: Any) -> float:
    """The seconds of a run at an epoch or step, or at its end; without bound if it diverged."""
    if has_diverged(run):
        return float("inf")
    at = run if place is None else run[np.isclose(run[by].to_numpy(float), place, rtol=0, atol=1e-9)]
    return float(at["seconds"].max()) if len(at) else float(run["seconds"].max())


def _value(line: Line, run: pd.DataFrame, by: str, place: float) -> float | None:
    """The quantity of a run at a place on the axis ``by``; that of its start if it diverged."""
    values, axis = run[line.quantity].to_numpy(float), run[by].to_numpy(float)
    if has_diverged(run):
        return float(values[0])
    if by == "seconds":
        logarithmic = line.unit == "relative" and bool((values > 0).all())
        found = np.interp(place, axis, np.log(values) if logarithmic else values)
        return float(np.exp(found) if logarithmic else found)
    there = values[np.isclose(axis, place, rtol=0, atol=1e-9)]
    return float(there[0]) if len(there) else None


def best(line: Line, rows: pd.DataFrame) -> pd.DataFrame:
    """The runs of a side at the value of ``best_over`` at which the mean of the quantity at the end is best."""

    def end(run: pd.DataFrame) -> float:
        values = run.sort_values("step")[line.quantity].to_numpy(float)
        return float(values[0] if has_diverged(run.sort_values("step")) else values[-1])

    means = {
        value: np.mean([end(run) for _, run in of_value.groupby("run")])
        for value, of_value in rows.groupby(line.best_over)
    }
    chosen = (min if line.direction in ("lower", "not lower") else max)(means, key=lambda value: means[value])
    return rows[rows[line.best_over] == chosen]


def averaged(line: Line, pairs: pd.DataFrame, missing: int, diverged: int) -> Pairs:
    """The means over the labels of ``average``; a pair that lacks one of their values is missing."""
    needed = int(np.prod([len(values) for values in line.average.values()]))
    groups = pairs.groupby(line.pairs, dropna=False)
    means = groups[[FIRST, SECOND]].mean().reset_index()
    complete = means[groups.size().to_numpy() == needed]
    words = " and ".join(f"{key} {', '.join(map(str, values))}" for key, values in line.average.items())
    reason = "" if len(complete) else f"no pair has all of {words}"
    return Pairs(complete, missing, diverged, reason)
