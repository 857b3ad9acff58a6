"""The table of a sweep: one row per run, and means over seeds; as aligned text and as CSV."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from experiments import files
from experiments.errors import UserError
from experiments.run import runs
from experiments.run.sweep import Outcome
from experiments.run.tables import Row

log = logging.getLogger(__name__)

NUMBERS = ("train_loss", "test_loss", "test_metric", "seconds")
COLUMNS = [
    *("overrides", "train_loss", "test_loss", "metric", "test_metric", "seconds"),
    *("events", "no_op", "never_due", "diverged_step", "folder", "error"),
]
"""The columns of the CSV file: the run's overrides, its ``summary.json``, its folder and why it failed."""

MEANS = [
    *("overrides", "runs", "metric"),
    *(f"{key}_{statistic}" for key in NUMBERS for statistic in ("mean", "std")),
]
"""The columns of the CSV file of means over seeds; ``std`` is the sample standard deviation."""


def report(outcomes: Sequence[Outcome], path: Path) -> int:
    """Print the table of a sweep, with means over seeds, and write it to ``path``; the number of runs that failed.

    The means are written besides, to ``<name>-seeds.csv``.

    Raises:
        UserError: a file cannot be written.
    """
    log.info("\n%s", table(outcomes))
    if means := table_of_means(outcomes):
        log.info("\n%s", means)
        files.write_csv(path.with_name(f"{path.stem}-seeds.csv"), MEANS, means_over_seeds(outcomes))
    rows = [row_of(outcome) for outcome in outcomes]
    files.write_csv(path, COLUMNS, rows)
    failed = sum(bool(row.get("error")) for row in rows)
    log.info("%d runs, %d failed; table: %s", len(outcomes), failed, path)
    return failed


def row_of(outcome: Outcome) -> Row:
    """The row of a run; a figure's folder has no summary and no numbers."""
    row: Row = {"overrides": " ".join(outcome.overrides)}
    if not outcome.folder:
        return row | {"error": outcome.error}
    row["folder"] = outcome.folder
    try:
        summary = read_summary(Path(outcome.folder))
    except UserError as error:
        return row | {"error": str(error)}
    return row | {key: summary[key] for key in COLUMNS if key in summary}


def read_summary(folder: Path) -> Row:
    """The summary of the run in ``folder``; empty if there is none, as in the folder of a figure.

    Raises:
        UserError: it cannot be read or is damaged.
    """
    return runs.read_summary(folder) if runs.complete(folder) else {}


def metric_to_minimise(outcome: Outcome) -> float | None:
    """What a Hydra sweeper minimises: the test loss at the end of the run.

    Infinity for a run that failed, diverged or has a damaged summary, which a sweeper takes for a bad point (it would
    refuse a NaN); ``None`` for a figure.
    """
    if not outcome.folder:
        return math.inf
    try:
        summary = read_summary(Path(outcome.folder))
    except UserError:
        return math.inf
    if not summary:
        return None
    loss = summary.get("test_loss")
    return math.inf if loss is None or summary.get("diverged") else float(loss)


def table(outcomes: Sequence[Outcome]) -> str:
    """The runs as aligned text: first the overrides that all share, then one line per run with those that differ.

    A remark says that a run diverged, that its teleports changed nothing, or why it failed.
    """
    shared, own = split_overrides([outcome.overrides for outcome in outcomes])
    rows = [row_of(outcome) for outcome in outcomes]
    lines = [("overrides", "train loss", "test loss", "metric", "seconds", "remark", "folder or error")]
    for overrides, row in zip(own, rows, strict=True):
        lines.append((" ".join(overrides) or "-", *_numbers(row), _remark(row), row.get("error") or row["folder"]))
    text = _aligned(lines)
    return f"all with: {' '.join(shared)}\n{text}" if shared else text


def table_of_means(outcomes: Sequence[Outcome]) -> str:
    """Mean and sample standard deviation over the seeds of each setting as aligned text; empty if none has two runs."""
    means = means_over_seeds(outcomes)
    if not means:
        return ""
    shared, _ = split_overrides([outcome.overrides for outcome in outcomes])
    own = [[override for override in row["overrides"].split() if override not in shared] for row in means]
    lines = [("mean over seeds", "runs", "train loss", "test loss", "metric", "seconds")]
    for overrides, row in zip(own, means, strict=True):
        cells = [_spread(row[f"{key}_mean"], row[f"{key}_std"]) for key in NUMBERS]
        cells[2] = f"{row['metric']} {cells[2]}"
        lines.append((" ".join(overrides) or "-", str(row["runs"]), *cells))
    return _aligned(lines)


def means_over_seeds(outcomes: Sequence[Outcome]) -> list[Row]:
    """One row per setting of at least two finished runs that differ in ``seed`` alone; a run counts once.

    A sweeper may choose the same values twice, and the outcomes then name one folder.

    A loss that is not finite, of a run that diverged, makes its mean infinite.
    """
    settings: dict[str, list[Row]] = {}
    for outcome in {outcome.folder: outcome for outcome in outcomes}.values():
        row = row_of(outcome)
        if "train_loss" in row:
            setting = " ".join(override for override in outcome.overrides if not override.startswith("seed="))
            settings.setdefault(setting, []).append(row)
    means = []
    for setting, rows in settings.items():
        if len(rows) > 1:
            mean: Row = {"overrides": setting, "runs": len(rows), "metric": rows[0].get("metric", "")}
            for key in NUMBERS:
                values = [math.inf if row.get(key) is None else float(row[key]) for row in rows]
                finite = all(map(math.isfinite, values))
                mean[f"{key}_mean"] = statistics.fmean(values) if finite else math.inf
                mean[f"{key}_std"] = statistics.stdev(values) if finite else math.nan
            means.append(mean)
    return means


def split_overrides(overrides: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """The overrides that all runs share, and those that each run has besides; one run shares none."""
    if len(overrides) < 2:
        return [], [list(each) for each in overrides]
    shared = [override for override in overrides[0] if all(override in each for each in overrides)]
    return shared, [[override for override in each if override not in shared] for each in overrides]


def _numbers(row: Row) -> list[str]:
    numbers = [_short(row.get(key)) for key in NUMBERS]
    if row.get("metric"):
        numbers[2] = f"{row['metric']} {numbers[2]}"
    return numbers


def _remark(row: Row) -> str:
    if row.get("error"):
        return "failed"
    if row.get("diverged_step") is not None:
        return f"diverged at step {row['diverged_step']}"
    if row.get("no_op"):
        return "teleports changed nothing"
    if row.get("never_due"):
        return "teleport never due"
    return "-"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _spread(mean: float, deviation: float) -> str:
    return f"{mean:.4g} ± {deviation:.2g}" if math.isfinite(mean) else "not finite"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]) for line in lines
    )
