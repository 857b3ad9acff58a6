"""Files that appear whole: written under another name in the same folder, then renamed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_LONGEST = 150
"""Characters of a file's name that its temporary name repeats; file systems take 255 bytes."""


@contextlib.contextmanager
def writing_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write; at the end of the block it is on the disk and becomes ``path``.

    Raises:
        OSError: it cannot be written. After this and any other exception, ``path`` is what it was before, and no
            temporary file is left.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    temporary = path.with_name(f".{path.name[:_LONGEST]}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # not the temporary name
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
