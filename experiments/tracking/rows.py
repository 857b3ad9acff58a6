"""What is told of a run: named numbers per optimizer step, from the rows of its tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

CURVE = {
    "loss/train": "train_loss",
    "loss/test": "test_loss",
    "metric/train": "train_metric",
    "metric/test": "test_metric",
    "lr": "lr",
    "seconds": "seconds",
    "epoch": "epoch",
}
"""Name -> column of the curve."""
EVENT = {
    "teleport/seconds": "seconds",
    "teleport/steps": "steps",
    "teleport/drift": "drift_batches",
    "teleport/train_loss_before": "train_loss_before",
    "teleport/train_loss_after": "train_loss_after",
    "teleport/test_loss_before": "test_loss_before",
    "teleport/test_loss_after": "test_loss_after",
}
"""Name -> column of the events."""
NORMS = {f"teleport/gradient_norm_{moment}": f"gradient_norm_{moment}" for moment in ("before", "after")}
"""Name -> column of the batches of an event, over which it is the mean."""
MOVED = "teleport/moved_layers"


def told(tables: Mapping[str, Sequence[Row]], evaluations: int, events: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Step and numbers of the rows after the first ``evaluations`` of the curve and the first ``events``.

    Args:
        tables: of the records of a run.
        evaluations: rows of the curve that were told before.
        events: that were told before.
    """
    for row in tables["teleport_events"][events:]:
        batches = [batch for batch in tables["teleports"] if batch["event"] == row["event"]]
        layers = [layer for layer in tables["teleport_layers"] if layer["event"] == row["event"]]
        numbers = {name: row[column] for name, column in EVENT.items()}
        numbers |= {name: _mean([batch[column] for batch in batches]) for name, column in NORMS.items()}
        numbers[MOVED] = sum(layer["relative_change"] > 0 for layer in layers)
        yield row["step"], _finite(numbers)
    for row in tables["curve"][evaluations:]:
        yield row["step"], _finite({name: row[column] for name, column in CURVE.items()})


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values and all(map(math.isfinite, values)) else math.nan


def _finite(numbers: Mapping[str, Any]) -> dict[str, float]:
    """Without what is not finite, which none of the trackers draws."""
    return {name: float(value) for name, value in numbers.items() if value is not None and math.isfinite(value)}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
