"""One tidy table a figure: a row an observation, with the labels of its run and where it was measured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.errors import UserError

CONSTANT = ("scale", "results_version")
"""Columns that hold one value: what was measured at two scales or by two versions of the code is never compared."""

WHERE = ("run", "hardware", "note", "reason")
"""Columns that each row ends with: the run's folder, what it ran on, what is to be said of its data, why it failed."""


def gather(cells: Iterable[tuple[dict[str, Any], pd.DataFrame]], scale: str, results_version: int) -> pd.DataFrame:
    """Stack the rows of all cells, each row with its cell's labels.

    Args:
        cells: labels and rows of each run; a run that failed has one row, with its ``reason``.
        scale: the scale of all of them.
        results_version: the version of the code's numbers.
    """
    frames = []
    for labels, rows in cells:
        for position, (column, value) in enumerate(labels.items()):
            rows.insert(position, column, value)
        frames.append(rows)
    table = pd.concat(frames, ignore_index=True)
    table["scale"], table["results_version"] = scale, results_version
    for column in WHERE:
        table[column] = table[column].fillna("") if column in table else ""
    measured = [column for column in table if column not in (*CONSTANT, *WHERE)]
    return table[[*measured, *CONSTANT, *WHERE]]


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table whole: beside, then renamed. Floats are written so that reading gives the same ones."""
    beside = path.with_name(path.name + ".part")
    table.to_csv(beside, index=False, lineterminator="\n")
    beside.replace(path)


def read(path: Path) -> pd.DataFrame:
    """Read a table back, bit for bit.

    Raises:
        UserError: no table there, not a figure's table, or one that mixes scales or versions of the results.
    """
    if not path.is_file():
        raise UserError(f"there is no table {path}; make the figure with run.py first")
    try:
        table = pd.read_csv(path, float_precision="round_trip", keep_default_na=False, na_values=[""])
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no table that can be read ({error}); make the figure again") from error
    check(table, path)
    for column in WHERE:
        table[column] = table[column].fillna("").astype(str)
    return table


def check(table: pd.DataFrame, path: Path) -> None:
    """Refuse a table that lacks the columns of a figure's table or mixes what must not be compared."""
    missing = [column for column in (*CONSTANT, *WHERE) if column not in table]
    if missing:
        raise UserError(f"{path} lacks the column '{missing[0]}'; make the figure again")
    for column in CONSTANT:
        values = [str(value) for value in table[column].unique()]
        if len(values) > 1:
            raise UserError(
                f"{path} mixes {column.replace('_', ' ')} {' and '.join(values)}, which are never compared in one table; "
                "make the figure again"
            )


def hardware(table: pd.DataFrame) -> list[str]:
    """What the table's runs ran on, each once. Who compares seconds asks for one."""
    return [name for name in table["hardware"].unique() if name]


def one_hardware(table: pd.DataFrame) -> None:
    """Refuse to compare seconds of different machines.

    Raises:
        UserError: the table's runs ran on more than one.
    """
    found = hardware(table)
    if len(found) > 1:
        raise UserError(
            f"seconds measured on {' and on '.join(found)} are not compared; make the figure's runs on one machine"
        )
