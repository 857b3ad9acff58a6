"""Benchmarks of speed, memory and drift on this machine: one module per subject, run by ``scripts/benchmark.py``.

A subject is a module of this package, named in ``SUBJECTS``, that implements :class:`Subject`. Shared code is in
``common.py``. Importing this file is cheap: the script lists the subjects from it.
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
    "against": "a whole null-space event, compared with the library at an earlier commit",
    "basis": "finding a null space, compared with a singular value decomposition",
    "change_of_basis": "a random change of basis, compared with multiplying every weight once",
    "epoch": "a teleport with the suite's settings, compared with an epoch of training",
    "runtime": "seconds of a whole teleport by null space and symmetry, and their growth",
    "teleport": "seconds of a whole teleport at width 1024: all variants of the null space, and symmetry",
    "positions": "seconds of a whole teleport by number of positions (pixels, tokens)",
    "start": "seconds to the help, to an error message, and to the first step of a run, and their imports",
    "training": "the training loop, compared with one by hand and with a data set and a loader",
    "nullspace_step": "one step of a null-space teleport, in gradient evaluations",
    "drift": "what a move changes on other data, by four ways: plain ascent, the shortest, of least drift, at random",
    "landing": "evaluations per landing on the cap, and the polynomial that the squared gradient norm is",
    "symmetries": "the symmetries of a hundred models: dimensions, what pins, how far outputs move, the cost",
    "memory": "peak memory of a teleport of a transformer by length, compared with a training step and the weights",
}
"""Module -> its description in the help of the script."""


class Subject(Protocol):
    """The interface of a subject's module."""

    COLUMNS: list[str]
    """The columns of its table, which has one row per case and method."""

    AIMS: list[Aim]
    """The limits that its table is checked against; see ``aims.py``."""

    def measure(self, settings: Settings) -> Iterator[dict[str, Any]]:
        """Yield the rows of the table as they are measured."""

    def line(self, row: dict[str, Any]) -> str:
        """A row as one line of progress output."""

    def summary(self, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Heading -> a table derived from the measured one; ratios first."""


def subject(name: str) -> Subject:
    """The module of one of ``SUBJECTS``."""
    return cast(Subject, importlib.import_module(f"{__name__}.{name}"))
