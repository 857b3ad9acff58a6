"""Runs on disk, found by the hash of their configuration."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from experiments import files
from experiments.configuration.config import Config
from experiments.configuration.identity import run_folder
from experiments.data import data_files
from experiments.data.published import files_read
from experiments.errors import UserError
from experiments.run.tables import COLUMNS, TEXTS, Row, missing_column

if TYPE_CHECKING:
    import pandas as pd


log = logging.getLogger(__name__)

CHECKPOINT, LOCK = "checkpoint.pt", ".lock"
"""Files of a run that goes on."""

REMEDY = "delete the folder and make the run again"


def complete(folder: Path) -> bool:
    """Whether the run in ``folder`` is complete."""
    return os.path.lexists(folder / "summary.json")


def told_if_complete(folder: Path, alone: bool = False) -> bool:
    """Whether the run in ``folder`` is complete; if so, it is logged, and what a kill in its last moments left goes.

    Args:
        folder: of the run.
        alone: whether this process holds the folder's lock.

    Raises:
        UserError: the summary cannot be read or is damaged.
    """
    if not complete(folder):
        return False
    read_summary(folder)
    leftovers = [path for path in (folder / CHECKPOINT, folder / LOCK, *folder.glob(".*.tmp")) if path.exists()]
    with contextlib.suppress(OSError, Timeout):  # the folder cannot be written, or another process is just finishing
        if leftovers and alone:
            _remove(leftovers)
        elif leftovers:
            with FileLock(folder / LOCK, timeout=0):
                _remove([*leftovers, folder / LOCK])  # the lock before its release, so that nobody holds what is gone
    log.info("already done: %s", folder)
    return True


def _remove(leftovers: list[Path]) -> None:
    for path in leftovers:
        path.unlink(missing_ok=True)


def folder_of(config: Config) -> Path:
    """The folder of the run of a resolved ``config``, whether it exists or not.

    A run is found by its seed and the hash of its configuration, whatever the folder's name begins with: names have
    changed, hashes have not. If that run was made with other content of a data file, it stays, and the folder is
    another, whose hash is also of the content.

    Raises:
        UserError: the file of ``model.weights``, which is part of the hash, or a data file cannot be read; the name is
            too long.
    """
    folder = _found(run_folder(config))
    paths = files_read(config.data.name, Path(config.data.root))
    try:
        other = data_files.replaced(folder, paths)
        if other is None:
            return folder
        log.info("note: %s has other content than in the run %s, which stays as it is", other, folder.name)
        return _found(run_folder(config, data_files.digest(paths)))
    except OSError as error:
        raise UserError(f"a data file of '{config.data.name}' cannot be read: {error}") from error


def _found(folder: Path) -> Path:
    """The folder, or one whose name ends as its does."""
    with files.writing(folder):
        if folder.exists():
            return folder
    ending = folder.name.rpartition("-s")[2]
    named_otherwise = sorted(folder.parent.glob(f"*-s{ending}")) if folder.parent.is_dir() else []
    return named_otherwise[0] if named_otherwise else folder


def read_summary(folder: Path) -> Row:
    """The summary of the complete run in ``folder``.

    Raises:
        UserError: it cannot be read, is damaged, or has other types.
    """
    path = folder / "summary.json"
    summary = files.read_json(path, REMEDY)
    for key, is_right in SUMMARY.items():
        if not is_right(summary.get(key)):
            raise UserError(f"'{path}' is damaged: its '{key}' is {summary.get(key)!r}; {REMEDY}")
    for key in ("train_loss", "test_loss"):
        if summary.get(key, 0.0) is None and (ended := _last_of_curve(folder, key)) is not None:
            raise UserError(f"'{path}' is damaged: its '{key}' is null, but the curve ends at {ended:g}; {REMEDY}")
    return summary


def _last_of_curve(folder: Path, key: str) -> float | None:
    """The last value of a column of the curve, ``None`` if it is not finite or cannot be read."""
    try:
        with (folder / "curve.csv").open(newline="") as file:
            value = float(list(csv.DictReader(file))[-1][key])
    except (OSError, ValueError, LookupError, TypeError):
        return None  # the curve itself is checked when it is read
    return value if math.isfinite(value) else None


def _is_numeric(cells: pd.Series) -> bool:
    """Whether all cells are numbers, truth values or empty."""
    return cells.dtype.kind in "bif" or cells.dropna().map(lambda cell: isinstance(cell, bool | int | float)).all()


def _is_number_or_none(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


SUMMARY: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(
        ("train_loss", "test_loss", "test_metric", "seconds", "events", "diverged_step"), _is_number_or_none
    ),
    **dict.fromkeys(("metric", "note"), lambda value: value is None or isinstance(value, str)),
    **dict.fromkeys(("no_op", "never_due", "diverged"), lambda value: value is None or isinstance(value, bool | int)),
    "checksums": lambda value: value is None or isinstance(value, dict),
}
"""Key of a summary -> whether a value is of its type; null is a number that is not finite, or missing in older runs."""


def load_table(folder: Path, name: str) -> pd.DataFrame:
    """A table of the run in ``folder``: curve, teleports, teleport_layers, teleport_events or positions.

    Raises:
        UserError: it does not exist, cannot be read, is damaged, or has other columns or types.
    """
    import pandas as pd

    path = folder / f"{name}.csv"
    checksums = (read_summary(folder).get("checksums") if complete(folder) else None) or {}
    try:
        content = path.read_bytes()
        if checksums.get(path.name, (actual := hashlib.sha256(content).hexdigest())) != actual:
            raise UserError(f"'{path}' is damaged or was changed: its content does not have its checksum; {REMEDY}")
        table = pd.read_csv(io.BytesIO(content))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read; {REMEDY}") from error
    if missing := missing_column(name, table.columns):
        raise UserError(f"'{path}' lacks the column '{missing}'; {REMEDY}")
    for column in set(COLUMNS[name]) - TEXTS:
        if column in table and not _is_numeric(table[column]):
            raise UserError(f"'{path}' has other values than numbers in the column '{column}'; {REMEDY}")
    return table


def moved_layers(folder: Path, events: pd.DataFrame) -> pd.Series:
    """The number of layers whose weights each of the ``events`` of the run in ``folder`` changed.

    Raises:
        UserError: the table of layers cannot be read.
    """
    layers = load_table(folder, "teleport_layers")
    moved = (layers["relative_change"] > 0).groupby(layers["event"]).sum()
    return events["event"].map(moved).fillna(0).astype(int)
