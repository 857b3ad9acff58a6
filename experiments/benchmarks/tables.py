"""A subject, measured and written: its table, and what follows from it in the machine's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import files
from experiments.benchmarks import subject
from experiments.benchmarks.common import Row, Settings, slug
from experiments.errors import UserError
from experiments.run.environment import environment

SMOKE = "-smoke"
"""How the names of a smoke measurement's files end, which says nothing about a speed."""


def record(name: str, settings: Settings, results: Path) -> dict[str, pd.DataFrame]:
    """Measure the subject ``name``, telling each row, and write it under ``results``; the summary.

    Written are the table, ``<subject>-<machine>.csv``, and the entry of the subject in ``<machine>.json``: the
    command, the environment it was measured in and its summary. A smoke measurement has files of its own, with
    ``-smoke``.

    Raises:
        UserError: data that are not there, or files that cannot be written.
    """
    module, known = subject(name), environment(settings.device)
    rows: list[Row] = []
    for row in module.measure(settings):
        rows.append(row)
        print(module.line(row), flush=True)
    machine = slug(known["device_name"]) + (SMOKE if settings.smoke else "")
    path = results / f"{name}-{machine}.csv"
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
    """What measures the subject again."""
    smoke = " --smoke" if settings.smoke else ""
    how = f"--repeats {settings.repeats} --threads {threads} --device {settings.device}"
    return f"python scripts/benchmark.py {name} {how}{smoke}"


def entries(path: Path) -> dict[str, Any]:
    """The machine's file: subject -> its entry; nothing where there is no such file.

    Raises:
        UserError: a damaged file.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"'{path}' is not whole JSON; delete it, and measure again what it held") from error
    return found


def _enter(path: Path, name: str, entry: dict[str, Any]) -> None:
    """Put a subject's entry into the machine's file, beside those of the others."""
    files.write_text(path, json.dumps(dict(sorted({**entries(path), name: entry}.items())), indent=1) + "\n")
