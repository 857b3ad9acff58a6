"""How far the runs of a figure are, and about how long the others take."""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable, Sequence

log = logging.getLogger(__name__)

Key = tuple[Hashable, ...]


class Progress:
    """Counts runs, and estimates the time that is left from the runs made so far.

    The time of a run is the mean of those made with the same key, or else with the longest beginning of it that any
    was made with: ``(data, model, teleport)``, then ``(data, model)``, then ``(data,)``, then all. Runs that are there
    already take no time and are no basis of an estimate.

    Args:
        keys: of all runs, in their order.
        there: whether each is complete already.
        jobs: runs side by side.
    """

    def __init__(self, keys: Sequence[Key], there: Sequence[bool], jobs: int = 1) -> None:
        self.keys, self.there, self.jobs = list(keys), list(there), jobs
        self._open = {number for number, done in enumerate(there) if not done}
        self._made: list[tuple[Key, float]] = []
        self._lock = threading.Lock()  # outcomes of processes come in a thread

    def begin(self, number: int) -> str:
        """What is said before run ``number`` (from 0) is made."""
        return f"run {number + 1} of {len(self.keys)}{self._left()}"

    def end(self, number: int, seconds: float) -> str:
        """What is said after run ``number``, which took ``seconds``; empty if it was there already."""
        with self._lock:
            if self.there[number]:
                return ""
            self._open.discard(number)
            self._made.append((self.keys[number], seconds))
            return f"{len(self.keys) - len(self._open)} of {len(self.keys)} runs are done{self._left()}"

    def seconds_left(self) -> float | None:
        """The estimate; ``None`` before the first run is made."""
        if not self._made:
            return None
        return sum(self._estimate(self.keys[number]) for number in self._open) / self.jobs

    def _estimate(self, key: Key) -> float:
        for length in range(len(key), -1, -1):
            alike = [seconds for made, seconds in self._made if made[:length] == key[:length]]
            if alike:
                return sum(alike) / len(alike)
        raise AssertionError("there is a run that was made")

    def _left(self) -> str:
        seconds = self.seconds_left()
        return "" if not seconds else f", about {in_words(seconds)} left"


def in_words(seconds: float) -> str:
    """``40 seconds``, ``20 minutes``, ``3.5 hours``: no finer than an estimate is."""
    if seconds < 90:
        return _counted(max(1, round(seconds / 10) * 10 if seconds > 15 else round(seconds)), "second")
    if seconds < 90 * 60:
        return _counted(round(seconds / 60), "minute")
    return f"{seconds / 3600:.1f} hours"


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}" + ("s" if number != 1 else "")
