"""One tidy table per figure: one row per observation, with the labels and the environment of its run."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.errors import UserError

CONSTANT = ("scale", "results_version")
"""Columns with a single value: results of different scales or versions of the code are not compared."""

WHERE = ("run", "hardware", "note", "reason")
"""The last columns: folder and hardware of the run, the note on its data, and the reason for a missing result."""


def gather(cells: Iterable[tuple[Mapping[str, Any], pd.DataFrame]], scale: str, results_version: int) -> pd.DataFrame:
    """Stack the rows of all cells, each row with its cell's labels.

    Args:
        cells: labels and rows of each run. A run without a result has one row with its ``reason``.
        scale: of all runs.
        results_version: of all runs.
    """
    frames = []
    first: dict[str, None] = {}  # all labels, including those of only some runs
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
        UserError: the file cannot be read, or see :func:`parse`.
    """
    return decode(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """The content of a table's file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"the table '{path}' cannot be read: {reason}; make its figure again with run.py") from error


def decode(content: bytes, source: str) -> pd.DataFrame:
    """The table in the bytes of a file, see :func:`parse`."""
    try:
        return parse(content.decode(), source)
    except UnicodeDecodeError as error:
        raise UserError(f"the table '{source}' is damaged: it is no text; make its figure again with run.py") from error


def parse(text: str, source: str) -> pd.DataFrame:
    """The table in a text, with numbers bit-identical to those written.

    Args:
        text: CSV.
        source: its name, for messages.

    Raises:
        UserError: the text is not the table of a figure, or it mixes scales or versions of the results.
    """
    try:
        table = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""])
    except ValueError as error:  # pandas' parser errors are among them
        raise UserError(f"'{source}' is not a table; make its figure again with run.py") from error
    missing = [column for column in (*CONSTANT, *WHERE) if column not in table]
    if missing or table.empty:
        lack = f"the column '{missing[0]}'" if missing else "rows"
        raise UserError(f"the table '{source}' lacks {lack}; make its figure again with run.py")
    for column in CONSTANT:
        values = table[column].unique()
        if len(values) > 1:
            raise UserError(
                f"the table '{source}' mixes {column} {' and '.join(map(str, values))}, which cannot be compared in "
                "one figure; make it again with run.py"
            )
    for column in WHERE:
        table[column] = table[column].astype(object).fillna("").astype(str)
    return table


def hardware(table: pd.DataFrame) -> list[str]:
    """The distinct hardware of the table's runs."""
    return [name for name in table["hardware"].unique() if name]


def refuse_mixed_hardware(table: pd.DataFrame) -> None:
    """Check that the seconds of a table can be compared.

    Raises:
        UserError: the runs differ in hardware, threads or torch version.
    """
    found = hardware(table)
    if len(found) > 1:
        raise UserError(
            f"seconds are not compared across hardware, and the runs ran on {' and on '.join(found)}; make them on one "
            "machine, with the same machine.threads"
        )
