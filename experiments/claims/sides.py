"""The two sides of a comparison: the rows of a table that each is about, and the pairs that they form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims.ledger import Line
from experiments.errors import UserError

TELEPORT_SHARE = "teleport_share"
"""A quantity of a run of a table of curves: the share of its seconds that its teleports take."""
FIRST, SECOND = "first side", "second side"
"""The columns of values, of names that no table has."""
FEWEST_RATES = 3
"""Of ``best_over``: the best of fewer values is not tuned."""


@dataclass
class Pairs:
    """One row per pair with the values of both sides (of one, against a value), and how many lack a side."""

    table: pd.DataFrame
    missing: int = 0
    diverged: int = 0
    reason: str = ""
    """Why nothing was measured; empty if there are pairs."""


def select(table: pd.DataFrame, wanted: Mapping[str, Any]) -> pd.DataFrame:
    """The rows that have the ``wanted`` values: column -> a value, a list of values, or ``{operator: number}``.

    Numbers are compared as numbers within 1e-12 of their value; ``None`` is an empty cell.
    """
    chosen = pd.Series(True, index=table.index)
    for column, allowed in wanted.items():
        if column not in table:
            return table.iloc[:0]
        if isinstance(allowed, dict):
            numbers = pd.to_numeric(table[column], errors="coerce")
            for operator, bound in allowed.items():
                chosen &= {
                    "above": numbers > bound,
                    "at_least": numbers >= bound,
                    "below": numbers < bound,
                    "at_most": numbers <= bound,
                }[operator]
        else:
            values = allowed if isinstance(allowed, list) else [allowed]
            chosen &= np.logical_or.reduce([_equal(table[column], value) for value in values])
    return table[chosen]


def _equal(cells: pd.Series, value: Any) -> Any:
    if value is None:
        return cells.isna()
    if isinstance(value, bool | str):
        return cells.astype(str).str.lower() == str(value).lower()
    return np.isclose(pd.to_numeric(cells, errors="coerce"), value, rtol=1e-12, atol=0)


def form(line: Line, table: pd.DataFrame) -> Pairs:
    """The pairs of a line that is not about curves.

    Args:
        line: the comparison.
        table: of its figure, with rows of failed runs.

    Raises:
        UserError: several rows of a side have the same labels, so that pairs are ambiguous.
    """
    rows = table[table["reason"] == ""]
    first = _values(line, select(rows, line.first), line.quantity, [*line.pairs, *line.observations], FIRST)
    if line.second is None:
        return Pairs(first) if len(first) else Pairs(first, reason=why_none(table, line.first))
    second = _values(line, select(rows, line.second), line.second_quantity or line.quantity, line.pairs, SECOND)
    for side, values in ((line.first, first), (line.second, second)):
        if not len(values):
            return Pairs(values, reason=why_none(table, side))
    if line.pairs:
        matched = first.merge(second, on=line.pairs)
        reason = "" if len(matched) else "no two rows form a pair"
        return Pairs(matched, missing=len(first) - len(matched), reason=reason)
    return Pairs(first.merge(second, how="cross"))


def _values(line: Line, rows: pd.DataFrame, quantity: str, keys: list[str], name: str) -> pd.DataFrame:
    """The values of one side, one row per combination of ``keys``, in the column ``name``."""
    keys = [*keys, *([line.growth] if line.growth and line.growth not in keys else [])]
    if not len(rows):
        return pd.DataFrame(columns=[*keys, name])
    if quantity == TELEPORT_SHARE:
        shares = [(key, _share(run)) for key, run in rows.groupby(keys, dropna=False)]
        return pd.DataFrame([[*key, share] for key, share in shares], columns=[*keys, name])
    values = rows[keys].assign(**{name: pd.to_numeric(rows[quantity], errors="coerce")})
    values = values[values[name].notna()]
    if line.deviation_from is not None:
        values[name] = (values[name] - line.deviation_from).abs()
    if line.reduce:
        if not keys:
            return pd.DataFrame({name: [values[name].agg(line.reduce)]})
        return values.groupby(keys, dropna=False)[name].agg(line.reduce).reset_index()
    if values.duplicated(keys).any() if keys else len(values) > 1:
        raise UserError(
            f"the claim '{line.id}' is ambiguous: several rows of its {name} have the same {', '.join(keys)}; add "
            "a column to 'pairs' or 'observations', or say how to 'reduce' them"
        )
    return values.reset_index(drop=True)


def _share(run: pd.DataFrame) -> float:
    """The share of a run's seconds that its teleports take; nan for a run of no seconds."""
    durations = pd.to_numeric(run.loc[run["event"] == "teleport", "duration"])
    seconds = run.loc[run["event"] == "evaluation", "seconds"].max()
    return float(durations.sum() / seconds) if seconds > 0 else float("nan")


def why_none(table: pd.DataFrame, wanted: Mapping[str, Any]) -> str:
    """Why a table has no row of a side: the reason of a run that failed, or what is not in the table."""
    labels = {key: value for key, value in wanted.items() if key not in ("event", "step")}
    failed = select(table[table["reason"] != ""], labels) if set(labels) <= set(table) else table.iloc[:0]
    if len(failed):
        return f"its run has no result: {failed['reason'].iloc[0]}"
    words = ", ".join(f"{key}={_words(value)}" for key, value in wanted.items())
    return f"the table has no rows with {words}" if words else "the table has no rows of it"


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return " and ".join(f"{operator.replace('_', ' ')} {bound:g}" for operator, bound in value.items())
    return " or ".join(map(str, value)) if isinstance(value, list) else str(value)


def absent(line: Line, pairs: pd.DataFrame) -> str:
    """The value that a line lists for a column of its pairs and that has no pair, as ``column=value``; or nothing."""
    for column in line.pairs:
        wanted = line.first.get(column)
        for value in wanted if isinstance(wanted, list) else []:
            if not len(select(pairs, {column: value})):
                return f"{column}={value}"
    return ""
