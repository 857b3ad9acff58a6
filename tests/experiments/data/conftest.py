"""Real data where it is there, and a file server of one's own for the downloads."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from experiments.data.published import SEQUENCES, is_stored


@pytest.fixture
def real_root() -> Callable[[str], Path]:
    """Call it with a set's name for the folder of real data; the test skips where the set is not in it."""

    def root_of(name: str) -> Path:
        root = Path(os.environ.get("TELEPORT_DATA", "data"))
        if not is_stored(SEQUENCES.get(name, name), root):
            pytest.skip(f"{name} is not under {root}; set TELEPORT_DATA to where it is")
        return root

    return root_of


class Site(NamedTuple):
    """A folder and the address that it is served at."""

    folder: Path
    url: str


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; a file whose name begins with ``cut-`` announces more bytes than it sends."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def send_header(self, keyword: str, value: str) -> None:
        if keyword == "Content-Length" and "/cut-" in self.path:
            value = str(int(value) + 100)
        super().send_header(keyword, value)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A file server on this machine."""
    for key in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(key, raising=False)
    folder = tmp_path / "site"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Site(folder, f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()
    thread.join()
