"""The aims of all subjects with the measured values: one table per machine, and one page of all."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from experiments import files
from experiments.benchmarks import SUBJECTS, subject
from experiments.benchmarks.tables import SMOKE, entries

COLUMNS = ["subject", "aim", "limit", "reached", "unit", "state", "command"]


def aims_of(machine: str, results: Path) -> pd.DataFrame:
    """The aims of all subjects with the values of a ``machine``, one row per aim, from its tables under ``results``.

    If a table is missing or lacks a current column of its subject, its aims are not measured.
    """
    known = entries(results / f"{machine}.json")
    found = []
    for name in SUBJECTS:
        module, path = subject(name), results / f"{name}-{machine}.csv"
        table = pd.read_csv(path) if path.is_file() else pd.DataFrame()
        whole = set(module.COLUMNS) <= set(table.columns)
        command = known.get(name, {}).get("command", f"python scripts/benchmark.py {name}")
        for aim in module.AIMS:
            reached = float(aim.figure(table)) if whole else math.nan
            cells = (name, aim.what, f"{aim.relation} {aim.limit:g}", reached, aim.unit, aim.state(reached), command)
            found.append(dict(zip(COLUMNS, cells, strict=True)))
    return pd.DataFrame(found, columns=COLUMNS)


def write_aims(results: Path, smoke: bool) -> dict[str, pd.DataFrame]:
    """Write ``aims-<machine>.csv`` for each machine with tables under ``results``, and ``README.md`` with all of them.

    Smoke measurements have files of their own and are not in the README.

    Returns:
        machine -> its aims.
    """
    measured = {machine: aims_of(machine, results) for machine in _machines(results, smoke)}
    for machine, table in measured.items():
        cells = table.astype(object).where(table.notna(), None)
        files.write_csv(results / f"aims-{machine}.csv", COLUMNS, cells.to_dict("records"))
    if not smoke:
        files.write_text(results / "README.md", as_markdown(measured))
    return measured


def as_markdown(measured: dict[str, pd.DataFrame]) -> str:
    """The aims of each machine as a page."""
    page = ["# What was aimed at, and what was reached", ""]
    page += ["`python scripts/benchmark.py aims` writes this page from the tables beside it, without measuring.", ""]
    for machine, table in measured.items():
        page += [f"## {machine}", "", "| aim | limit | reached | | command |", "|---|---|---|---|---|"]
        for row in table.itertuples():
            limit = f"{row.limit} {row.unit}".rstrip()  # a sine has no unit
            page.append(f"| {row.aim} | {limit} | {_told(row.reached)} | {row.state} | `{row.command}` |")
        page.append("")
    return "\n".join(page)


def _told(figure: float) -> str:
    return "" if math.isnan(figure) else f"{figure:.3g}"


def _machines(results: Path, smoke: bool) -> list[str]:
    """The machines with a table of any subject."""
    tables = [path.stem.partition("-") for path in sorted(results.glob("*-*.csv"))]
    machines = dict.fromkeys(machine for name, _, machine in tables if name in SUBJECTS)
    return [machine for machine in machines if machine.endswith(SMOKE) == smoke]
