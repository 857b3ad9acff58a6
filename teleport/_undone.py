"""Work on a model that is undone whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def always_undone(work: Callable[[], Result], undo: Callable[[], None]) -> Result:
    """The result of ``work``, after which ``undo`` is called, twice if an interrupt came within the first call.

    Args:
        work: changes a model, or raises.
        undo: restores it; it may be called again.
    """
    try:
        try:
            return work()
        finally:
            undo()
    except BaseException:
        undo()
        raise
