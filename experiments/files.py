"""Atomic writing of files: to a temporary file in the same folder, which is then renamed."""

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
"""The exceptions that torch raises for a damaged file of ``torch.save``, or one of another model."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise a ``UserError`` if ``path`` cannot be written (full or read-only disk, a file in place of a folder)."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot write '{path}': {reason}; free some space, or choose a folder that can be written "
            "(machine.runs is that of runs)"
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``path`` atomically.

    Raises:
        UserError: it cannot be written; the previous content is unchanged, and no temporary file is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Write ``path`` atomically, as UTF-8."""
    write_bytes(path, content.encode())


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write ``rows`` atomically as CSV; floats keep all their digits, a missing value is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def clean(folder: Path) -> None:
    """Remove the temporary files that a killed process left in ``folder``."""
    with writing(folder):
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
