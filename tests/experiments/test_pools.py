"""Processes of a pool end with the process that made it."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from tests.commands import started

ROOT = Path(__file__).parents[2]

POOL = """
import time
from experiments.pools import process_pool

def begin():
    print("begun", flush=True)

if __name__ == "__main__":
    with process_pool(2, begin) as pool:
        list(pool.map(time.sleep, [600, 600]))
"""


def test_they_end_when_it_is_killed(tmp_path):
    """One that is left would keep the output open."""
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    with started([sys.executable, script], env={"PYTHONPATH": str(ROOT)}) as running:
        assert [running.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
        running.send_signal(signal.SIGKILL)
        reader = threading.Thread(target=running.stdout.read)
        reader.start()
        reader.join(60)
        assert not reader.is_alive()
