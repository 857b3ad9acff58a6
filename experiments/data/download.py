"""Download of a published file with verification."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

from experiments.data.published import Remote
from experiments.errors import UserError


class Unreachable(Exception):
    """A file could not be downloaded from any of its addresses; the message is the reason."""


def git_blob_id(path: Path) -> str:
    """The git blob id of a file: ``sha1(b"blob <length>\\0" + content)`` in hex."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _from_first_that_answers(remote: Remote, retrieve: Callable[[str], None]) -> str:
    """Call ``retrieve`` with each address until one succeeds, and return that one; the last failure is reported."""
    from requests.exceptions import RequestException

    reason = "it has no address"
    for url in remote.urls:
        try:
            retrieve(url)
        except RequestException as error:
            status = getattr(error.response, "status_code", None)
            host = urlparse(url).netloc
            reason = f"{host} answers {status} for {url}" if status else f"no full answer from {host}"
        else:
            return url
    raise Unreachable(reason)


def download(remote: Remote, folder: Path) -> Path:
    """Download a published file into ``folder``, with a progress bar, and verify it.

    Raises:
        Unreachable: no address provided the whole file.
        UserError: the content does not match ``remote.check``; the file is deleted.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")  # otherwise it logs every hash
    path = folder / remote.name
    kind, expected = remote.check.split(":")
    known_hash = None if kind == "git" else remote.check

    def retrieve(url: str) -> None:
        try:
            pooch.retrieve(url, known_hash, fname=path.name, path=folder, progressbar=True)
        except ValueError as error:  # pooch: the hash does not match; the file is already deleted
            # requests raises ValueErrors as well, for invalid addresses
            if "does not match" not in str(error):
                raise
            raise _mismatch(remote, url) from error

    url = _from_first_that_answers(remote, retrieve)
    if kind == "git" and git_blob_id(path) != expected:
        path.unlink()
        raise _mismatch(remote, url)
    return path


def _mismatch(remote: Remote, url: str) -> UserError:
    kind, expected = remote.check.split(":")
    kind = {"git": "git blob id"}.get(kind, kind)
    return UserError(
        f"what {url} gave is not the published {remote.name}, whose {kind} is {expected}: it is truncated or was "
        "changed, and was not kept; try again, or put a good copy in place by hand"
    )
