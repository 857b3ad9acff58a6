"""The tables of a run: their columns and the types of their cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]

COLUMNS: dict[str, list[str]] = {
    "curve": ["step", "epoch", "seconds", "train_loss", "train_metric", "test_loss", "test_metric", "lr"],
    "teleports": [
        *("event", "epoch", "step", "batch", "loss_before", "loss_after"),
        *("gradient_norm_before", "gradient_norm_after", "steps", "stopped", "accepted", "reason"),
    ],
    "teleport_layers": [
        *("event", "layer", "kind", "dimension", "rank_min", "rank_max", "null_min", "null_max"),
        *("surviving", "relative_change", "residual", "free", "shared", "pinned", "reason"),
    ],
    "teleport_events": [
        *("event", "epoch", "step", "started", "seconds", "steps", "accepted", "no_op", "drift_batches"),
        *("train_loss_before", "train_loss_after", "test_loss_before", "test_loss_after"),
    ],
    "positions": ["step", "moment", "coordinate", "value"],
}
"""Table -> columns; a table is ``<name>.csv`` in the run's folder. ARCHITECTURE.md says what each is."""

ADDED_SINCE = {"teleport_layers": {"residual", "free", "shared", "pinned"}}
"""Columns younger than runs that are kept."""

TEXTS = {"layer", "kind", "stopped", "reason", "moment"}
"""The columns of texts; all others are of numbers."""

NEVER_EMPTY: dict[str, set[str]] = {
    "curve": {*COLUMNS["curve"]},
    "teleports": set(),
    "teleport_layers": {"relative_change"},
    "teleport_events": {"no_op"},
    "positions": {*COLUMNS["positions"]},
}
"""Table -> the columns of which the rest of a run reads every cell."""


def is_number(value: Any) -> bool:
    """Whether ``value`` is a number, a truth value included."""
    return isinstance(value, int | float)


def is_row(table: str, row: Any) -> bool:
    """Whether a row has columns of its table alone, with values of their types."""
    if not isinstance(row, Mapping) or not NEVER_EMPTY[table] <= row.keys() <= set(COLUMNS[table]):
        return False
    return all(
        (value is None and key not in NEVER_EMPTY[table])
        or (isinstance(value, str) if key in TEXTS else is_number(value))
        for key, value in row.items()
    )


def missing_column(table: str, columns: Any) -> str:
    """The first column that the table of a run must have and does not; empty if there is none."""
    needed = [column for column in COLUMNS[table] if column not in ADDED_SINCE.get(table, ())]
    return next((column for column in needed if column not in columns), "")
