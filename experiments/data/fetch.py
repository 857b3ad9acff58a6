"""Download, conversion and atomic storage of published data sets."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from experiments.data.arrays import check_images, write_images
from experiments.data.convert import published_images
from experiments.data.download import Unreachable, download
from experiments.data.published import IMAGES, SEQUENCES, SERIES, TEXTS, is_stored, stored_files
from experiments.errors import UserError


def ensure(name: str, root: Path) -> bool:
    """Fetch the data set ``name`` if it is not under ``root`` yet; whether it was fetched.

    Raises:
        UserError: as ``fetch``.
    """
    missing = not is_stored(SEQUENCES.get(name, name), root)
    if missing:
        fetch(name, root)
    return missing


def fetch(name: str, root: Path) -> None:
    """Download, verify, convert and store the published data set ``name`` under ``root``.

    The work is done in a scratch folder next to the target; complete files are moved into place at the end.

    Raises:
        UserError: the name is unknown, there is no network, a checksum or shape differs from the published one, or the
            disk is full.
    """
    name = SEQUENCES.get(name, name)
    targets = stored_files(name, root)
    with scratch_folder(name, root) as folder:
        try:
            if name in IMAGES:
                arrays = published_images(name, folder)
                check_images(arrays, IMAGES[name], f"the published {name}")
                write_images(folder / targets[0].name, arrays)
                ready = [folder / targets[0].name]
            elif name in SERIES:
                ready = [download(SERIES[name].file, folder)]
            elif name in TEXTS:
                text = TEXTS[name]
                ready = [download(remote, folder) for remote in (text.train, text.test, *text.extra)]
            else:
                ready = []
        except Unreachable as error:
            raise UserError(
                f"data set '{name}' is not at {' and '.join(map(str, targets))} and cannot be fetched ({error}); run "
                f"`python scripts/fetch_data.py {name}` where there is a network, or take data=digits"
            ) from error
        for path in ready:
            target = targets[0].parent / path.name
            target.parent.mkdir(exist_ok=True)
            path.replace(target)


@contextmanager
def scratch_folder(name: str, root: Path) -> Iterator[Path]:
    """A temporary folder under ``root``; a new ``root`` in which nothing was stored is removed as well.

    Raises:
        UserError: the disk is full, or ``root`` is not writable.
    """
    new = not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=root, ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk is full: data set '{name}' could not be stored under {root}, and nothing of it was kept; "
                "free some space or set data.root to another disk"
            ) from error
        raise UserError(
            f"data set '{name}' could not be stored under {root}: {error.strerror or error}; set data.root (or "
            "TELEPORT_DATA) to a folder that can be written to"
        ) from error
    finally:
        if new:
            with suppress(OSError):  # not empty: the set was stored
                root.rmdir()
