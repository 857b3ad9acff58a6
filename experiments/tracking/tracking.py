"""The tracking of one run: what is new is told, and a tracker that fails does not end the training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.tracking.rows import Row, told
from experiments.tracking.trackers import Tracker

log = logging.getLogger(__name__)


class Tracking:
    """Tells a tracker the rows that it does not have yet.

    Args:
        tracker: of the run; ``None`` for none.
        tables: of the records with which the run begins; those of a run that goes on were told before.
    """

    def __init__(self, tracker: Tracker | None, tables: Mapping[str, Sequence[Row]]) -> None:
        self._tracker = tracker
        self._evaluations, self._events = len(tables["curve"]), len(tables["teleport_events"])

    def update(self, tables: Mapping[str, Sequence[Row]]) -> None:
        """Tell the rows since the last call."""
        if self._tracker is None:
            return
        try:
            for step, numbers in sorted(told(tables, self._evaluations, self._events), key=lambda item: item[0]):
                self._tracker.log(step, numbers)
        except Exception as error:  # of code that is not ours, or of a network: the tables have everything
            self._give_up(error)
        self._evaluations, self._events = len(tables["curve"]), len(tables["teleport_events"])

    def end(self, summary: Mapping[str, Any], paths: Sequence[Path]) -> None:
        """Tell how the run ended, and its files."""
        if self._tracker is None:
            return
        try:
            self._tracker.end(summary, paths)
        except Exception as error:
            self._give_up(error)

    def close(self) -> None:
        """Write what is not written yet."""
        if self._tracker is None:
            return
        try:
            self._tracker.close()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._tracker = None
        log.warning(
            "note: tracking ends (%s: %s); the run goes on, and its tables are whole", type(error).__name__, error
        )
