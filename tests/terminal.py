"""A pseudo-terminal to write on."""

from __future__ import annotations

import os
import pty
import termios
from typing import TextIO


class Terminal:
    """A pseudo-terminal: ``file`` is written to, :meth:`read` returns what arrived."""

    def __init__(self) -> None:
        self._read, write = pty.openpty()
        self.file: TextIO = os.fdopen(write, "w")

    def columns(self, columns: int) -> None:
        termios.tcsetwinsize(self.file.fileno(), (24, columns))

    def read(self) -> str:
        self.file.write("!")  # the end of what was written before
        self.file.flush()
        text = ""
        while not text.endswith("!"):
            text += os.read(self._read, 65536).decode()
        return text[:-1].replace("\r\n", "\n")

    def close(self) -> None:
        self.file.close()
        os.close(self._read)
