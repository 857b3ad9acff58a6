"""One tidy table a figure: a row an observation, with the labels of its run and what it was measured with."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.errors import UserError

CONSTANT = ("scale", "results_version")
"""Columns that hold one value: what was measured at two scales, or by two versions of the code, is not compared."""

WHERE = ("run", "hardware", "note", "reason")
"""The last columns: the run's folder, what it ran on, what is to be said of its data, and why it has no result."""


def gather(cells: Iterable[tuple[Mapping[str, Any], pd.DataFrame]], scale: str, results_version: int) -> pd.DataFrame:
    """Stack the rows of all cells, each row with its cell's labels.

    Args:
        cells: labels and rows of each run. A run without a result has one row, which says its ``reason``.
        scale: the scale of all of them.
        results_version: of all of them.
    """
    frames = []
    first: dict[str, None] = {}  # what tells runs apart, also where only some of them have it
    for labels, rows in cells:
        first |= dict.fromkeys(labels)
        repeated = pd.DataFrame({key: [value] * len(rows) for key, value in labels.items()}, index=rows.index)
        frames.append(pd.concat([repeated, rows], axis="columns"))
    table = pd.concat(frames, ignore_index=True)
    table["scale"], table["results_version"] = scale, results_version
    for column in WHERE:
        table[column] = table[column].fillna("") if column in table else ""
    last = [*CONSTANT, *WHERE]
    return table[[*first, *(column for column in table if column not in first and column not in last), *last]]


def to_csv(table: pd.DataFrame) -> str:
    """The table as text; floats keep all their digits."""
    return table.to_csv(index=False, lineterminator="\n")


def read(path: Path) -> pd.DataFrame:
    """The table in a file.

    Raises:
        UserError: there is none, or see :func:`parse`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the table '{path}' cannot be read; make its figure again with run.py") from error
    return parse(text, str(path))


def parse(text: str, source: str) -> pd.DataFrame:
    """The table in a text, the same numbers bit for bit as were written.

    Raises:
        UserError: no table, not a figure's, or one that mixes scales or versions of the results.
    """
    try:
        table = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""])
    except ValueError as error:  # pandas' parser errors are among them
        raise UserError(f"'{source}' is no table; make its figure again with run.py") from error
    missing = [column for column in (*CONSTANT, *WHERE) if column not in table]
    if missing or table.empty:
        lack = f"the column '{missing[0]}'" if missing else "rows"
        raise UserError(f"the table '{source}' lacks {lack}; make its figure again with run.py")
    for column in CONSTANT:
        values = table[column].unique()
        if len(values) > 1:
            raise UserError(
                f"the table '{source}' mixes {column} {' and '.join(map(str, values))}, which are not compared in one "
                "figure; make it again with run.py"
            )
    for column in WHERE:
        table[column] = table[column].astype(object).fillna("").astype(str)
    return table


def hardware(table: pd.DataFrame) -> list[str]:
    """What the table's runs ran on, each once."""
    return [name for name in table["hardware"].unique() if name]


def refuse_mixed_hardware(table: pd.DataFrame) -> None:
    """For drawings that compare seconds.

    Raises:
        UserError: the runs ran on more than one machine, or in more than one way.
    """
    found = hardware(table)
    if len(found) > 1:
        raise UserError(
            f"seconds are not compared across hardware, and the runs ran on {' and on '.join(found)}; make them on one "
            "machine, with the same machine.threads"
        )
