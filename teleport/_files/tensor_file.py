"""Tensors and plain values in a file with a checksum: the format of ``torch.save``, and a SHA-256 of all of it.

The checksum is the comment of the zip archive that ``torch.save`` writes, so ``torch.load`` reads these files as well.
A file of ``torch.save`` itself has no such comment; it is checked by the CRC-32 of the archive's entries if these are
there, which torch writes but does not verify.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from teleport._files.whole import writing_whole

_COMMENT = b"teleport 1 sha256 "
_LENGTH = len(_COMMENT) + 64
_END = 22
"""Bytes of the last record of a zip archive; its last two are the length of the comment that follows."""

_BLOCK = 1 << 20


class InvalidFile(ValueError):
    """A file whose content cannot be used. The message says why, in words that follow the name of the file."""


class Content(NamedTuple):
    """The content of a file, and whether a checksum has shown that it is what was written."""

    value: Any
    checked: bool


class _Hashed:
    """A target for ``torch.save`` that computes the checksum of what it is handed, and holds back the last record."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._held, self._digest = file, b"", hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Pass on all but the last bytes."""
        written = bytes(data)
        whole = self._held + written
        self._held = whole[-_END:]
        self._pass(whole[:-_END])
        return len(written)

    def flush(self) -> None:
        """Nothing: the last record is written by :meth:`close`."""

    def close(self) -> None:
        """Write the last record, with the length of the comment, and the comment."""
        self._pass(self._held[:-2] + _LENGTH.to_bytes(2, "little"))
        self._file.write(_COMMENT + self._digest.hexdigest().encode())

    def _pass(self, data: bytes) -> None:
        self._digest.update(data)
        try:
            self._file.write(data)
        except OSError as error:  # torch would make a RuntimeError of it
            self.error = error
            raise


def write(path: str | os.PathLike[str], content: Any) -> None:
    """Write tensors and plain values with a checksum, for :func:`read`; the file appears whole or not at all.

    Raises:
        OSError: it cannot be written; a file that was there stays as it was.
    """
    with writing_whole(Path(path)) as file:
        write_to(file, content)


def write_to(file: BinaryIO, content: Any) -> None:
    """Write the same to an open file.

    Raises:
        OSError: the file cannot be written to.
    """
    hashed = _Hashed(file)
    try:
        torch.save(content, hashed)  # type: ignore[arg-type]
    except RuntimeError:
        if hashed.error is not None:
            raise hashed.error from None
        raise
    hashed.close()


def read(path: str | os.PathLike[str]) -> Content:
    """What :func:`write` or ``torch.save`` wrote, on the CPU; only tensors and plain values, and no code is run.

    Raises:
        InvalidFile: the file is damaged, or holds something else.
        OSError: there is no such file, or it cannot be read.
    """
    with Path(path).open("rb") as file:
        checked = _checked(file)
        file.seek(0)
        try:
            return Content(torch.load(file, map_location="cpu", weights_only=True), checked)
        except pickle.UnpicklingError as error:
            damaged = "" if checked else "is damaged or "
            raise InvalidFile(f"{damaged}holds more than tensors and plain values") from error
        except Exception as error:  # torch raises many kinds for a file that is not its own
            raise InvalidFile("is damaged or is no file of torch.save") from error


def _checked(file: BinaryIO) -> bool:
    """Whether a checksum shows that the file is what was written.

    Raises:
        InvalidFile: a checksum shows that it is not.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LENGTH))
    comment = file.read()
    if re.fullmatch(re.escape(_COMMENT) + rb"[0-9a-f]{64}", comment):
        if _sha256(file, size - _LENGTH) != comment[-64:].decode():
            raise InvalidFile("is damaged: its content does not have its checksum")
        return True
    file.seek(0)
    if file.read(4) != b"PK\x03\x04":  # torch's format before 1.6, which has no checksum
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if not any(entry.CRC for entry in entries):  # torch.serialization.set_crc32_options(False)
                return False
            if archive.testzip() is None:
                return True
    except Exception as error:  # zipfile raises many kinds for an archive that is not one
        raise InvalidFile("is damaged: it is not a whole archive of torch.save") from error
    raise InvalidFile("is damaged: its content does not have its checksum")


def _sha256(file: BinaryIO, size: int) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while size > 0 and (block := file.read(min(size, _BLOCK))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()
