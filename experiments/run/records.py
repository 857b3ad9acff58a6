"""The records of a run: rows in memory during the run, tables and a summary in its folder."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments import files
from experiments.run.evaluation import Evaluation
from experiments.run.tables import COLUMNS, Row, is_number, is_row
from teleport import LayerReport, TeleportReport

LOSSES = ("train_loss", "train_metric", "test_loss", "test_metric")
"""The columns of the curve that an evaluation fills."""


@dataclass
class Records:
    """The rows of a run so far, and its step and clocks; all of it is in a checkpoint.

    ``step`` counts optimizer steps. The seconds are those of training steps and of teleports.
    """

    step: int = 0
    training_seconds: float = 0.0
    teleport_seconds: float = 0.0
    diverged_step: int | None = None
    tables: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in COLUMNS})

    def __post_init__(self) -> None:
        """Add the tables that a checkpoint of older code lacks."""
        for name in COLUMNS:
            self.tables.setdefault(name, [])

    @classmethod
    def of(cls, content: Any) -> Records:
        """The records of their plain form in a checkpoint.

        Raises:
            TypeError, ValueError: it is none.
        """
        records = cls(**content)
        numbers = (records.step, records.training_seconds, records.teleport_seconds, records.diverged_step or 0)
        if not all(map(is_number, numbers)) or not isinstance(records.step, int) or records.step < 0:
            raise ValueError("the step or a clock is no number")
        if set(records.tables) != set(COLUMNS) or not records.tables["curve"]:
            raise ValueError("there are other tables")
        for name, rows in records.tables.items():
            if not isinstance(rows, list) or not all(is_row(name, row) for row in rows):
                raise ValueError(f"a row of the table {name} is of other columns or types")
        return records

    @property
    def seconds(self) -> float:
        """The clock of the curve: training and teleports."""
        return self.training_seconds + self.teleport_seconds

    def latest(self) -> Evaluation | None:
        """The evaluation at the current step, if there is one."""
        curve = self.tables["curve"]
        if not curve or curve[-1]["step"] != self.step:
            return None
        here = [row for row in self.tables["positions"] if (row["step"], row["moment"]) == (self.step, "evaluation")]
        return Evaluation(*(curve[-1][key] for key in LOSSES), tuple(row["value"] for row in here))

    def add_evaluation(self, epoch: float, lr: float, evaluation: Evaluation) -> None:
        """Add a row to the curve."""
        losses = {key: getattr(evaluation, key) for key in LOSSES}
        row = {"step": self.step, "epoch": epoch, "seconds": self.seconds, **losses, "lr": lr}
        self.tables["curve"].append(row)
        self._add_position("evaluation", evaluation)

    def add_teleport(
        self, event: int, epoch: float, seconds: float, before: Evaluation, after: Evaluation, report: TeleportReport
    ) -> None:
        """Add the rows of an event, its batches and its layers. Called before ``seconds`` are added to the clock."""
        self.tables["teleport_events"].append(
            {
                "event": event,
                "epoch": epoch,
                "step": self.step,
                "started": self.seconds,
                "seconds": seconds,
                "steps": report.steps,
                "accepted": report.accepted,
                "no_op": report.no_op,
                "drift_batches": report.drift,
                "train_loss_before": before.train_loss,
                "train_loss_after": after.train_loss,
                "test_loss_before": before.test_loss,
                "test_loss_after": after.test_loss,
            }
        )
        self._add_position("before teleport", before)
        self._add_position("after teleport", after)
        own = ("epoch", "event", "step", "batch")
        columns = [column for column in COLUMNS["teleports"] if column not in own]
        for number, batch in enumerate(report.batches):
            row = {"event": event, "epoch": epoch, "step": self.step, "batch": number}
            # "steps" and the rest are the batch's own
            own_values = {column: getattr(batch, column) for column in columns}
            own_values["stopped"] = str(batch.stopped)  # a checkpoint holds plain values only
            self.tables["teleports"].append(row | own_values)
        self.tables["teleport_layers"] += [{"event": event, **_layer_values(layer)} for layer in report.layers]

    def _add_position(self, moment: str, evaluation: Evaluation) -> None:
        """Add one row per coordinate, for models with few parameters."""
        self.tables["positions"] += [
            {"step": self.step, "moment": moment, "coordinate": number, "value": value}
            for number, value in enumerate(evaluation.position)
        ]

    def write(self, folder: Path) -> None:
        """Write the tables, each whole; the table of positions only if it has rows."""
        for name, columns in COLUMNS.items():
            if self._is_written(name):
                files.write_csv(folder / f"{name}.csv", columns, self.tables[name])

    def _is_written(self, table: str) -> bool:
        return bool(self.tables[table]) or table != "positions"

    def checksums(self, folder: Path) -> dict[str, str]:
        """The SHA-256 of each table that :meth:`write` has written to ``folder``, by the name of its file."""
        return {f"{name}.csv": files.sha256(folder / f"{name}.csv") for name in COLUMNS if self._is_written(name)}

    def summary(self) -> Row:
        """The final losses, the seconds and the effect of the teleports."""
        last, events = self.tables["curve"][-1], self.tables["teleport_events"]
        return {
            **{key: last[key] for key in ("train_loss", "train_metric", "test_loss", "test_metric", "epoch", "step")},
            "seconds": self.seconds,
            "training_seconds": self.training_seconds,
            "teleport_seconds": self.teleport_seconds,
            "events": len(events),
            "no_op": bool(events) and all(event["no_op"] for event in events),
            "relative_change": max((row["relative_change"] for row in self.tables["teleport_layers"]), default=0.0),
            "diverged": self.diverged_step is not None,
            "diverged_step": self.diverged_step,
        }


def _layer_values(layer: LayerReport) -> Row:
    """What a layer's row in ``teleport_layers`` says of the layer; what its method does not measure is ``None``."""
    ranks, surviving = getattr(layer, "ranks", []), getattr(layer, "surviving", [])
    null = getattr(layer, "null_dimensions", [])
    channels = [getattr(layer, kind, 0) for kind in ("free", "shared", "pinned")]
    free, shared, pinned = channels if any(channels) else (None, None, None)
    return {
        "layer": layer.name,
        "kind": layer.kind,
        "dimension": layer.dimension,
        "rank_min": min(ranks, default=None),
        "rank_max": max(ranks, default=None),
        "null_min": min(null, default=None),
        "null_max": max(null, default=None),
        "surviving": sum(surviving) / len(surviving) if surviving else None,
        "relative_change": layer.relative_change,
        "residual": getattr(layer, "residual", None),
        "free": free,
        "shared": shared,
        "pinned": pinned,
        "reason": layer.reason,
    }


def write_json(path: Path, content: Row) -> None:
    """Write ``content`` as JSON with a checksum, whole or not at all; infinities and NaN become null."""
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in content.items()
    }
    files.write_json(path, finite)
