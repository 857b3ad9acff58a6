"""What ``scripts/benchmark.py runtime`` measured: a teleport's seconds along each axis."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from experiments.benchmarks.common import base_of
from experiments.benchmarks.runtime import AXES, COLUMNS, exponents
from experiments.errors import UserError
from experiments.figures.runs import FigureRun


def measure_runtime(run: FigureRun | None, *, folder: str) -> pd.DataFrame:
    """Rows ``axis``, its ``value``, ``method``, ``seconds`` (median), ``fastest``, ``slowest``; all else at its base.

    Besides: ``steps_taken`` and ``null_dimensions`` as measured; ``exponent``, the slope of log seconds over the log of
    the value for that method where it took steps, empty where it did so at fewer than two values; and the case at the
    base, a column an axis.

    Args:
        run: none; the figure has no runs.
        folder: where the benchmark's tables are, one a machine.

    Raises:
        UserError: no table, or one that is not the benchmark's.
    """
    tables = [path for path in sorted(Path(folder).glob("runtime-*.csv")) if not path.stem.endswith("-smoke")]
    if not tables:
        raise UserError(f"no 'runtime-*.csv' in '{folder}'; measure first: python scripts/benchmark.py runtime")
    return pd.concat([_along_axes(_read(path)) for path in tables], ignore_index=True)


def _read(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path)
    missing = [column for column in COLUMNS if column not in table]
    if missing or table.empty:
        lack = f"the column '{missing[0]}'" if missing else "rows"
        raise UserError(f"'{path}' lacks {lack}; measure again: python scripts/benchmark.py runtime")
    return table


def _along_axes(table: pd.DataFrame) -> pd.DataFrame:
    """One machine's rows at the base, once for each axis that is varied there."""
    base, fits = base_of(table, AXES), exponents(table)
    columns = ["method", "seconds", "fastest", "slowest", "steps_taken", "null_dimensions"]
    frames = []
    for axis, of_axis in fits.groupby("axis", sort=False):
        others = base.drop(axis)
        along = table[(table[others.index.tolist()] == others).all(axis=1)]
        frame = along[columns].assign(exponent=along["method"].map(of_axis.set_index("method")["slope"]), **base)
        frame.insert(0, "axis", axis)
        frame.insert(1, "value", along[axis])
        frames.append(frame)
    first = table.iloc[0]
    threads = f"{first['threads']} thread" + ("s" if first["threads"] != 1 else "")
    return pd.concat(frames, ignore_index=True).assign(
        hardware=f"{first['hardware']}, {threads}, torch {first['torch']}"
    )
