"""Commands in processes of their own, none of which a test waits for without end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Any

SECONDS = 300


@contextlib.contextmanager
def started(command: Sequence[object], seconds: float = SECONDS, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The process of ``command``, which ends within the block; all that it has started is killed after ``seconds``.

    Its own processes would keep the pipe of its output open, so that reading waits although the command is gone. They
    are also killed at the end of the block, the command itself only if the block raises.
    """
    process = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, text=True, start_new_session=True, **options
    )

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    too_long = threading.Timer(seconds, kill)
    too_long.start()
    try:
        with process:
            try:
                yield process
                process.wait()
            finally:
                kill()
    finally:
        too_long.cancel()


def finished(command: Sequence[object], seconds: float = SECONDS, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command after its end, with what it said; killed as by :func:`started`."""
    with started(command, seconds, stderr=subprocess.PIPE, **options) as process:
        said, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, said, errors)
