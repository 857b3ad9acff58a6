"""Measure a subject and write its table, and its summary into the machine's file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import files
from experiments.benchmarks import subject
from experiments.benchmarks.common import Row, Settings, slug
from experiments.errors import UserError
from experiments.run.environment import environment

SMOKE = "-smoke"
"""Ending of the file names of smoke measurements, whose times are not meaningful."""


def record(name: str, settings: Settings, results: Path) -> dict[str, pd.DataFrame]:
    """Measure the subject ``name``, print each row, write the results and return the summary.

    Two files are written under ``results``: the table, ``<subject>-<machine>.csv``, and the entry of the subject in
    ``<machine>.json``, with the command, the environment and the summary. Smoke measurements go to separate files whose
    names end in ``-smoke``. The rows of a subject with a ``KEY`` are written one by one, and those in its table are
    kept: delete the table to measure all anew.

    Raises:
        UserError: data are missing, or files cannot be written.
    """
    module, known = subject(name), environment(settings.device)
    machine = slug(known["device_name"]) + (SMOKE if settings.smoke else "")
    path = results / f"{name}-{machine}.csv"
    key = getattr(module, "KEY", None)
    rows: list[Row] = []
    if key is not None and path.is_file():
        kept = pd.read_csv(path)
        rows = kept.astype(object).where(kept.notna(), None).to_dict("records")  # type: ignore[assignment]
        settings = replace(settings, done=frozenset(kept[key]))
    for row in module.measure(settings):
        rows.append(row)
        print(module.line(row), flush=True)
        if key is not None:
            files.write_csv(path, module.COLUMNS, rows)
    files.write_csv(path, module.COLUMNS, rows)
    summary = module.summary(pd.DataFrame(rows, columns=module.COLUMNS))
    entry = {
        "table": path.name,
        "command": _command(name, settings, known["threads"]),
        "environment": known,
        "summary": {heading: json.loads(table.to_json(orient="records")) for heading, table in summary.items()},
    }
    _enter(results / f"{machine}.json", name, entry)
    print(f"\nwritten: {path}")
    return summary


def _command(name: str, settings: Settings, threads: int) -> str:
    """The command that repeats the measurement."""
    smoke = " --smoke" if settings.smoke else ""
    how = f"--repeats {settings.repeats} --threads {threads} --device {settings.device}"
    return f"python scripts/benchmark.py {name} {how}{smoke}"


def entries(path: Path) -> dict[str, Any]:
    """The content of a machine's file: subject -> its entry; empty if there is no file.

    Raises:
        UserError: the file is damaged.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"'{path}' is not valid JSON; delete it and repeat its measurements") from error
    return found


def _enter(path: Path, name: str, entry: dict[str, Any]) -> None:
    """Set a subject's entry in the machine's file; those of other subjects are kept."""
    files.write_text(path, json.dumps(dict(sorted({**entries(path), name: entry}.items())), indent=1) + "\n")
