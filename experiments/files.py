"""Files that appear whole: written beside, then renamed."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

from experiments.errors import UserError

DAMAGED = (OSError, EOFError, RuntimeError, LookupError, TypeError, ValueError, UnpicklingError, BadZipFile)
"""What reading a damaged file of ``torch.save``, or one of another model, raises somewhere inside torch."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write ``path`` (full or read-only disk, a file where a folder should be) into a sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot write '{path}': {reason}; free some space, or choose a folder that can be written "
            "(machine.runs is that of runs)"
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``path`` whole or not at all.

    Raises:
        UserError: it cannot be written; what was there before is still there, and nothing is left beside it.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Write ``path`` whole or not at all, as UTF-8."""
    write_bytes(path, content.encode())


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write ``rows`` as CSV, whole or not at all; floats keep all their digits, a missing value is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def clean(folder: Path) -> None:
    """Remove what a killed process left half-written in ``folder``."""
    with writing(folder):
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
