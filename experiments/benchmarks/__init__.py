"""How fast things are on this machine: a file a subject, run by ``scripts/benchmark.py``.

A subject is a module of this package, named in ``SUBJECTS``, that has what :class:`Subject` asks for; what subjects
share is in ``common.py``. Importing this file is cheap: the script lists the subjects from here.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    import pandas as pd

    from experiments.benchmarks.aims import Aim
    from experiments.benchmarks.common import Settings

SUBJECTS = {
    "basis": "finding a null space: against a singular value decomposition",
    "change_of_basis": "a random change of basis: against touching every weight once",
    "epoch": "a teleport of the suite's own settings: against an epoch of training",
    "runtime": "seconds of a whole teleport: null space and symmetry, and how they grow",
    "teleport": "seconds of a whole teleport at width 1024: the null space in all its ways, and symmetry",
    "positions": "seconds of a whole teleport as positions grow: pixels and tokens",
    "start": "seconds to the help, to a mistake, and to the first step of a run, and what they import",
    "training": "the training loop: against one by hand, and against a data set with a loader",
    "nullspace_step": "one step of a null-space teleport, in gradient evaluations",
    "memory": "peak memory of a teleport of a transformer: against a training step and the weights, by length",
}
"""Module -> what it measures, as the script's help says it."""


class Subject(Protocol):
    """What a subject's module has."""

    COLUMNS: list[str]
    """Of its table, which has a row a case and method."""

    AIMS: list[Aim]
    """What its table is to show; see ``aims.py``."""

    def measure(self, settings: Settings) -> Iterator[dict[str, Any]]:
        """The table's rows, each as soon as it is measured."""

    def line(self, row: dict[str, Any]) -> str:
        """A row in one line, for whoever waits."""

    def summary(self, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """What follows from the table, each with its heading; ratios first."""


def subject(name: str) -> Subject:
    """The module of one of ``SUBJECTS``."""
    return cast(Subject, importlib.import_module(f"{__name__}.{name}"))
