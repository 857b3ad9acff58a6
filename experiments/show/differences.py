"""What differs in the settings of some runs, and the lines that runs with the same settings form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.show.shown_run import ShownRun

NAMES = ("data.name", "model.name", "optimizer.name", "teleport.name")
SEED = "seed"


def differing(runs: Sequence[ShownRun]) -> list[str]:
    """The keys in which ``runs`` differ, the seed apart, without those that follow from the names before them.

    A key follows from the names if all runs with the same names have the same value of it: a learning rate that the
    optimizer alone decides is not named beside the optimizer.
    """
    keys = dict.fromkeys(key for name in (NAMES, *(run.settings for run in runs)) for key in name if key != SEED)
    names = [key for key in NAMES if _distinct(runs, [key]) > 1]
    others = [key for key in keys if key not in NAMES and _distinct(runs, [*names, key]) > _distinct(runs, names)]
    return names + others


def _distinct(runs: Sequence[ShownRun], keys: Sequence[str]) -> int:
    return len({tuple(repr(run.settings.get(key)) for key in keys) for run in runs})


def line_of(run: ShownRun, keys: Sequence[str]) -> str:
    """The name of a run's line: its values of the differing keys; those without any are all of one line."""
    return ", ".join(_words(key, run.settings.get(key)) for key in keys) or str(run.settings.get("teleport.name"))


def _words(key: str, value: Any) -> str:
    if key not in NAMES:
        return f"{key} {value}"
    return f"no {key.removesuffix('.name')}" if value == "none" else str(value)


def lines(runs: Sequence[ShownRun], keys: Sequence[str]) -> dict[str, list[ShownRun]]:
    """Line -> its runs, which differ in the seed alone."""
    found: dict[str, list[ShownRun]] = {}
    for run in runs:
        found.setdefault(line_of(run, keys), []).append(run)
    return found
