"""Comparison of a figure's methods in numbers: after the same number of epochs, and after the same seconds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.errors import UserError
from experiments.figures.table import refuse_mixed_hardware

TASK = ["data", "model", "optimizer"]


def compare(table: pd.DataFrame) -> pd.DataFrame:
    """One row per task and method (teleport and other labels of runs): mean and standard deviation over seeds.

    Args:
        table: of a figure of curves, see :func:`experiments.figures.subjects.curves.measure_curves`.

    Returns:
        ``train_end``, ``test_end``: final losses; ``same_seconds``: the training loss at the time at which the fastest
        method of the task ends, interpolated between evaluations in the logarithm of the loss; ``seconds`` of a run and
        the ``teleport_share`` of them. ``*_std`` uses n - 1 and is nan for one seed.

    Raises:
        UserError: the table is not one of curves, or its seconds were measured on several machines.
    """
    if "event" not in table or "train_loss" not in table:
        raise UserError("only a figure of curves can be compared in numbers, but this table has no losses")
    refuse_mixed_hardware(table)
    labels = list(table.columns[: table.columns.get_loc("step")])  # a table's first columns, see ARCHITECTURE.md
    others = [label for label in labels if label not in (*TASK, "seed")]
    rows = []
    for task, of_task in table[table["reason"] == ""].groupby(TASK, sort=False):
        ends = of_task[of_task["event"] == "evaluation"].groupby([*others, "seed"], dropna=False)["seconds"].max()
        fastest = ends.groupby(others, dropna=False).mean().min()
        for method, runs in of_task.groupby(others, sort=False, dropna=False):
            measured = pd.DataFrame([_run(run, fastest) for _, run in runs.groupby("seed")])
            row = dict(zip([*TASK, *others], [*task, *method], strict=True)) | {"seeds": len(measured)}
            for column in measured:
                row[column], row[f"{column}_std"] = measured[column].mean(), measured[column].std(ddof=1)
            rows.append(row)
    return pd.DataFrame(rows)


def _run(run: pd.DataFrame, at: float) -> dict[str, float]:
    """The numbers of one run; ``at`` is the end of the fastest method, in seconds."""
    evaluations, teleports = run[run["event"] == "evaluation"], run[run["event"] == "teleport"]
    seconds, losses = evaluations["seconds"].to_numpy(float), evaluations["train_loss"].to_numpy(float)
    teleporting = teleports["duration"].sum() if "duration" in teleports else 0.0
    return {
        "train_end": losses[-1],
        "test_end": float(evaluations["test_loss"].iloc[-1]),
        "same_seconds": float(np.exp(np.interp(at, seconds, np.log(losses)))),
        "seconds": seconds[-1],
        "teleport_share": teleporting / seconds[-1] if seconds[-1] else 0.0,
    }
