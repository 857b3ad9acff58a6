"""Pools of processes that end with the process that made them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor


def process_pool(processes: int, begin: Callable[[], None] | None = None) -> ProcessPoolExecutor:
    """A pool of processes started afresh, which end as soon as the present process has ended, even if it was killed.

    The processes of a plain pool outlive their killed parent: each ends its job, and then waits for another one, with
    the console still open, so that whoever reads the output of the command waits too.

    Args:
        processes: how many run side by side.
        begin: called in each of them first; a function of a module.
    """
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin, (begin,))


def _begin(begin: Callable[[], None] | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # at once, in the middle of a job; runs continue from their last checkpoint
