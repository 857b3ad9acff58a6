"""By which content of its data files a run was made, as a file in the run's folder.

The content is known by its SHA-256. A file of the same size, time stamps and inode as when it was recorded is not read
again, so that looking at a finished run takes no longer for a large data set.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import files
from experiments.errors import UserError

RECORD = "data_files.json"

Stamp = tuple[int, ...]


def contents(paths: Sequence[Path]) -> dict[str, Any]:
    """The content of data files, for :func:`write`.

    Raises:
        UserError: one cannot be read.
    """
    try:
        return {path.name: {"sha256": _digest(path, _stamp(path)), "stamp": list(_stamp(path))} for path in paths}
    except OSError as error:
        raise UserError(f"the data file '{error.filename}' cannot be read: {error.strerror or error}") from error


def write(folder: Path, read: dict[str, Any]) -> None:
    """Record in ``folder`` the contents of the data files that its run has read, if there are any.

    Raises:
        UserError: the record cannot be written.
    """
    if read:
        files.write_json(folder / RECORD, read)


def replaced(folder: Path, paths: Sequence[Path]) -> Path | None:
    """The first of the data files ``paths`` with another content than the run in ``folder`` was made with.

    ``None`` if there is none, if the run has no record, as one of earlier code, or if no data file is there to compare.

    Raises:
        UserError: the record cannot be read.
    """
    record = folder / RECORD
    if not paths or not record.is_file():
        return None
    known = files.read_json(record, "delete the folder and make the run again")
    return next((path for path in paths if not _is_known(path, known.get(path.name))), None)


def digest(paths: Sequence[Path]) -> str:
    """A text of the content of the data files ``paths``."""
    return " ".join(f"{path.name}:{_digest(path, _stamp(path))}" for path in paths)


def _is_known(path: Path, known: object) -> bool:
    if not isinstance(known, dict):
        return False
    stamp = _stamp(path)
    return list(stamp) == known.get("stamp") or _digest(path, stamp) == known.get("sha256")


def _stamp(path: Path) -> Stamp:
    """What changes when a file is written or replaced: its size, its times and where it is on the disk."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev


@functools.cache
def _digest(path: Path, stamp: Stamp) -> str:
    return files.sha256(path)
