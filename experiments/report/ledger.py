"""The verdicts on the papers' claims, as ``scripts/claims.py`` writes them (``results/claims.csv``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from pathlib import Path

import pandas as pd
import yaml

from experiments.claims import understood
from experiments.claims.verdicts import FAILS
from experiments.errors import UserError
from experiments.report.markup import NOT_JUDGED, badge, escaped, number, table

FILE = "claims.csv"
EXPLAINED = "claims.md"
NEEDED = ("claim", "figure", "verdict")
ORDER = ("holds", "does not hold", "undecided")
AGAIN = "write it again with: python scripts/claims.py"


def read(conf: Path, results: Path) -> pd.DataFrame:
    """The ledger as texts, one row per verdict; before the first judgement, one row per claim of ``conf/claims``.

    Its column ``claim`` has the names of claims, ``text`` what they say, ``tried`` what is known about why one does
    not hold.

    Raises:
        UserError: a file is no such table or list.
    """
    told = _told(conf / "claims")
    path = results / FILE
    if not path.exists():
        return told.assign(verdict=NOT_JUDGED)
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:  # pandas' parser errors and wrong encodings are ValueErrors
        raise UserError(f"the ledger '{path}' is not a table; {AGAIN}") from error
    missing = [column for column in NEEDED if column not in rows]
    if missing:
        raise UserError(f"the ledger '{path}' lacks the column '{missing[0]}'; {AGAIN}")
    rows = rows.apply(lambda column: column.str.strip())
    texts = dict(zip(told["claim"], told["text"], strict=True))
    tried = understood.read(results)
    return rows.assign(
        text=[texts.get(name, name) for name in rows["claim"]],
        tried=[str(tried.get(name, "")) for name in rows.get("id", rows["claim"])],
    )


def _told(folder: Path) -> pd.DataFrame:
    """The claims of the ledger's files, without a judgement."""
    rows = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            claims = yaml.safe_load(path.read_text())["claims"]
            rows += [
                [str(claim[key]) for key in ("id", "claim", "figure")] + [str(claim.get("place", ""))]
                for claim in claims
            ]
        except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"the claims in '{path}' cannot be read: each needs an id, a claim and a figure; get it back from git"
            ) from error
    return pd.DataFrame(rows, columns=["claim", "text", "figure", "place"])


def tally(rows: pd.DataFrame) -> dict[str, int]:
    """How often each verdict occurs, in the order of ``ORDER``, others last."""
    counts = Counter(rows["verdict"])
    return {name: counts[name] for name in (*ORDER, *sorted(counts.keys() - {*ORDER})) if name in counts}


def by_claim(rows: pd.DataFrame) -> str:
    """The verdicts of one figure: each claim with its place, then a table of its comparisons."""
    parts = []
    for _, own in rows.groupby("claim", sort=False):
        first = own.iloc[0]
        place = f" ({escaped(first['place'])})" if first.get("place") else ""
        parts += [f"**{escaped(first['text'])}**{place}", table(*_cells(own, COMPARED))]
        if first.get("tried") and (own["verdict"] == FAILS).any():
            parts.append(first["tried"])
    return "\n\n".join(parts)


def whole(rows: pd.DataFrame, linked: Container[str]) -> str:
    """The table of all verdicts, for a page in the site's root; ``linked`` names the figures that have a page there."""
    named = rows.assign(
        figure=[f"[{name}](figures/{name}.md)" if name in linked else escaped(name) for name in rows["figure"]]
    )
    columns = {"Claim": ("text", _text), **COMPARED, "Figure": ("figure", _markdown)}
    return table(*_cells(named, columns))


def _cells(rows: pd.DataFrame, columns: dict) -> tuple[list[str], list[list[str]]]:
    """Head and cells of a table; columns that the ledger lacks or leaves empty are left out."""
    shown = {name: cell for name, (source, cell) in columns.items() if source in rows and (rows[source] != "").any()}
    return list(shown), [[cell(row, columns[name][0]) for name, cell in shown.items()] for _, row in rows.iterrows()]


def _text(row: pd.Series, column: str) -> str:
    return escaped(row[column])


def _markdown(row: pd.Series, column: str) -> str:
    return str(row[column])


def _number(row: pd.Series, column: str) -> str:
    return number(row[column])


def _effect(row: pd.Series, column: str) -> str:
    """The effect with its interval, if it has one, and its unit."""
    low, high = number(row.get("low", "")), number(row.get("high", ""))
    interval = f"&nbsp;[{low},&nbsp;{high}]" if low and high else ""
    unit = escaped(row.get("unit", ""))
    return f"{number(row[column])}{interval} {unit}".strip() if row[column] else ""


def _verdict(row: pd.Series, column: str) -> str:
    """The verdict; one by a rule that is younger than the table says so."""
    older = " (older table)" if row.get("rule_first") == "no" else ""
    return badge(row[column] or NOT_JUDGED) + older


COMPARED = {
    "Verdict": ("verdict", _verdict),
    "Case": ("case", _text),
    "Compared at": ("at", _text),
    "Quantity": ("quantity", _text),
    "n": ("n", _number),
    "Effect, 95 % interval": ("effect", _effect),
    "Reason": ("reason", _text),
}
"""Heading -> the ledger's column that must be there, and what makes a cell of a row."""
