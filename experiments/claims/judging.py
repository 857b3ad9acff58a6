"""Every line of the ledgers judged on its table under ``results/``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from experiments.claims import age, curves, ledger, sides
from experiments.claims.ledger import Line
from experiments.claims.verdicts import NOT_MEASURED, Verdict, judge
from experiments.errors import UserError, one_of
from experiments.figures import provenance, table

LABELS = ("data", "model", "optimizer", "teleport", "seed")
"""What labels every run of a figure, besides the keys of its grids."""


@dataclass(frozen=True)
class Judged:
    """A line with its verdict, and whether its rule is older than the table."""

    line: Line
    verdict: Verdict
    missing: int
    diverged: int
    rule_first: str

    @property
    def command(self) -> str:
        """The command that makes the table."""
        return f"python run.py figure={self.line.figure}"


@dataclass
class Tables:
    """The tables of figures, each read once; a damaged one is told once and then missing."""

    results: Path
    errors: list[str] = field(default_factory=list)
    _read: dict[str, tuple[pd.DataFrame | None, dict[str, Any], str]] = field(default_factory=dict)

    def of(self, figure: str) -> tuple[pd.DataFrame | None, dict[str, Any], str]:
        """The table of a figure and its provenance; without a table, why."""
        if figure not in self._read:
            self._read[figure] = self._of(figure)
        return self._read[figure]

    def _of(self, figure: str) -> tuple[pd.DataFrame | None, dict[str, Any], str]:
        folder = self.results / figure
        path = folder / f"{folder.name}.csv"
        if not folder.is_dir():
            return None, {}, "the figure has no table yet"
        try:
            content = table.read_bytes(path)
            origin = provenance.read(folder / provenance.FILE)
            provenance.check_table(path, content, origin)
            return table.decode(content, str(path)), origin, ""
        except UserError as error:
            reason = " ".join(str(error).split())
            self.errors.append(reason)
            return None, {}, reason.replace(f"{self.results}/", "")

    def refuse(self, figure: str, reason: str) -> None:
        """Use a table no more, as what it holds turned out to be damaged."""
        self.errors.append(reason)
        self._read[figure] = None, {}, reason


def judge_all(root: Path, results: Path, ledgers: Iterable[Path]) -> tuple[list[Judged], list[str]]:
    """The verdict on every line, and the errors of tables that cannot be used.

    Args:
        root: of the checkout, with ``conf/figure``, whose git history says how old rules are.
        results: the folder of the figures' tables.
        ledgers: paths of ledgers, in ``root``.

    Raises:
        UserError: a ledger has a mistake, or names a column that its table does not have.
    """
    ledgers = sorted(ledgers)
    figures = root / "conf" / "figure"
    lines = [line for path in ledgers for line in ledger.read(path, figures)]
    since = age.commits_of((path.relative_to(root) for path in ledgers), root)
    tables, judged = Tables(results), []
    for line in lines:
        rows, origin, reason = tables.of(line.figure)
        if rows is None:
            judged.append(Judged(line, Verdict(NOT_MEASURED, reason=reason), 0, 0, ""))
            continue
        check_columns(line, rows, figures)
        if damage := not_numbers(line, rows):
            tables.refuse(line.figure, damage)
            judged.append(Judged(line, Verdict(NOT_MEASURED, reason=damage), 0, 0, ""))
            continue
        pairs = pairs_of(line, rows)
        gap = pairs.reason or sides.absent(line, pairs.table)
        if pairs.reason:
            verdict = Verdict(NOT_MEASURED, reason=pairs.reason)
        elif gap:
            verdict = Verdict(NOT_MEASURED, reason=f"the table has no pair with {gap}")
        else:
            verdict = judge(line, pairs.table)
        first = "" if verdict.verdict == NOT_MEASURED else age.older(root, since.get(age.content(line)), origin)
        judged.append(Judged(line, verdict, pairs.missing, pairs.diverged, first))
    return judged, tables.errors


def pairs_of(line: Line, rows: pd.DataFrame) -> sides.Pairs:
    """The pairs of a line; none if a label is not in the table, or seconds of different hardware would be compared."""
    absent = [column for column in line.columns if column and column not in rows]
    if absent:  # a label of the figure's configuration, which is younger than the table
        return sides.Pairs(pd.DataFrame(), reason=f"the table has no column '{absent[0]}'")
    if not line.at:
        return sides.form(line, rows)
    try:
        return curves.form(line, rows)
    except curves.MixedHardware as error:
        return sides.Pairs(pd.DataFrame(), reason=str(error))


OF_CURVES = ("step", "epoch", "seconds", "train_loss")
"""Columns of numbers that curves are compared by."""


def not_numbers(line: Line, rows: pd.DataFrame) -> str:
    """What is damaged in a table, if a column that is compared holds something else than numbers; or nothing."""
    compared = {line.quantity, line.second_quantity, line.growth, *(OF_CURVES if line.at else ())}
    if line.quantity == sides.TELEPORT_SHARE:
        compared |= {"seconds", "duration"}
    for column in sorted(compared & set(rows.columns)):
        bad = rows[column].notna() & pd.to_numeric(rows[column], errors="coerce").isna()
        if bad.any():
            return (
                f"the table of {line.figure} is damaged: its column '{column}' holds {rows.loc[bad, column].iloc[0]!r} "
                "instead of a number; make its figure again with run.py"
            )
    return ""


def check_columns(line: Line, rows: pd.DataFrame, figures: Path) -> None:
    """Raise a ``UserError`` for a column that a line names and its figure does not have.

    A label may be missing in a table that is older than the figure's configuration.
    """
    known = {*rows.columns, *labels(figures, line.figure)}
    quantities = [name for name in (line.quantity, line.second_quantity) if name and name != sides.TELEPORT_SHARE]
    curves_need = ["event", *OF_CURVES] if line.at else []
    share_needs = ["event", "seconds", "duration"] if line.quantity == sides.TELEPORT_SHARE else []
    for column in [*quantities, *curves_need, *share_needs]:
        if column not in rows:
            raise one_of(
                f"quantity of the claim '{line.id}' in the table of {line.figure}", column, sorted(rows.columns)
            )
    for column in line.columns:
        if column and column not in known:
            raise one_of(f"column of the claim '{line.id}' in the table of {line.figure}", column, sorted(known))


def labels(figures: Path, figure: str) -> set[str]:
    """The columns that label the runs of a figure: those of every run, and the keys of its grids and its bases'."""
    content = yaml.safe_load((figures / f"{figure}.yaml").read_text())
    keys = {key for grid in content.get("runs") or [] for key in grid}
    bases = [name for name in content.get("defaults", []) if isinstance(name, str) and name != "_self_"]
    return keys.union(LABELS, *(labels(figures, base) for base in bases if not base.startswith("/")))
