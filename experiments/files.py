"""Writing of files: each appears whole, or there is one sentence that says why it cannot be written."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from experiments.errors import UserError

CHECKSUM = "sha256"
"""The key of the checksum in a JSON file."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise a ``UserError`` if ``path`` cannot be written (full or read-only disk, a file in place of a folder)."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        cure = "free some space, or choose a folder that can be written"
        if error.errno == errno.ENAMETOOLONG:
            path, cure = Path(f"{str(path)[:40]}..."), "choose a folder with a shorter name"
        raise UserError(f"cannot write '{path}': {reason}; {cure} (machine.runs is that of runs)") from error


@contextlib.contextmanager
def writing_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write; at the end of the block it is on the disk and becomes ``path``.

    Raises:
        UserError: it cannot be written; the previous content is unchanged, and no temporary file is left.
    """
    temporary = path.with_name(f".{path.name[:150]}.{_host()}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``path`` atomically.

    Raises:
        UserError: as :func:`writing_whole`.
    """
    with writing_whole(path) as file:
        file.write(content)


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


def write_json(path: Path, content: Mapping[str, Any], indent: int = 2) -> None:
    """Write ``content`` atomically as JSON, with the checksum that :func:`read_json` looks at."""
    whole = {**content, CHECKSUM: _checksum(content)}
    write_text(path, json.dumps(whole, indent=indent, allow_nan=False) + "\n")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The content that :func:`write_json` wrote, without its checksum; a file of earlier code may lack it.

    Args:
        path: the file.
        remedy: what to do if it cannot be read, for the message.

    Raises:
        UserError: it cannot be read, is not a JSON object, or does not have its checksum.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror or error}; {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{path}' is damaged: it is not JSON; {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"'{path}' is damaged: it is not a JSON object; {remedy}")
    expected = content.pop(CHECKSUM, None)
    if expected is not None and expected != _checksum(content):
        raise UserError(f"'{path}' is damaged or was changed: its content does not have its checksum; {remedy}")
    return content


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def clean(folder: Path) -> None:
    """Remove the temporary files that a killed process left in ``folder``, which this process alone writes to."""
    with writing(folder):
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)


def clean_shared(folder: Path) -> None:
    """Remove from ``folder`` the temporary files of processes of this host that are no more; others may be at work."""
    with writing(folder):
        for leftover in folder.glob(f".*.{_host()}.*.tmp"):
            if not _alive(leftover.name.split(".")[-2]):
                leftover.unlink(missing_ok=True)


def _host() -> str:
    """The name of this host, without characters that separate parts of a file's name or are special in a pattern."""
    return "".join(each if each.isalnum() else "-" for each in socket.gethostname()[:50])


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except OSError:  # a process of another user
        return True
    return True
