"""The verdicts on the papers' claims, as ``scripts/claims.py`` writes them (``results/claims.csv``)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import yaml

from experiments.errors import UserError
from experiments.report.markup import NOT_JUDGED, badge, code, escaped, number

FILE = "claims.csv"
NEEDED = ("claim", "figure", "verdict")
AGAIN = "write it again with: python scripts/claims.py"


def read(conf: Path, results: Path) -> pd.DataFrame:
    """The ledger as texts, one row per verdict; before the first judgement, one row per claim of ``conf/claims``.

    Raises:
        UserError: a file is no such table or list.
    """
    path = results / FILE
    if not path.exists():
        return _not_judged(conf / "claims")
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:  # pandas' parser errors and wrong encodings are ValueErrors
        raise UserError(f"the ledger '{path}' is not a table; {AGAIN}") from error
    missing = [column for column in NEEDED if column not in rows]
    if missing:
        raise UserError(f"the ledger '{path}' lacks the column '{missing[0]}'; {AGAIN}")
    return rows.apply(lambda column: column.str.strip())


def _not_judged(folder: Path) -> pd.DataFrame:
    """The claims of the ledger's files, without a judgement."""
    rows = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            content = yaml.safe_load(path.read_text())
            claims = content["claims"]
            rows += [{key: str(claim.get(key, "")) for key in ("id", "place", "claim", "figure")} for claim in claims]
        except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"the claims in '{path}' cannot be read as YAML; get the file back from git") from error
    return pd.DataFrame(rows, columns=["id", "place", "claim", "figure"]).assign(verdict=NOT_JUDGED)


def tally(rows: pd.DataFrame) -> dict[str, int]:
    """How often each verdict occurs, the most frequent first."""
    return dict(Counter(rows["verdict"]).most_common())


def verdict_rows(rows: pd.DataFrame, link: bool) -> tuple[list[str], list[list[str]]]:
    """Head and cells of a table of verdicts; columns that the ledger lacks are left out.

    Args:
        rows: of the ledger.
        link: with a column that leads to the page of the figure, for a page in the site's root.
    """
    columns = {
        "Place": lambda row: escaped(row["place"]),
        "Claim": lambda row: escaped(row["claim"]),
        "Figure": lambda row: f"[{escaped(row['figure'])}](figures/{row['figure']}.md)",
        "Compared": lambda row: escaped(", ".join(part for part in (row.get("case", ""), row["at"]) if part)),
        "Quantity": lambda row: escaped(row["quantity"]),
        "n": lambda row: number(row["n"]),
        "Effect": _effect,
        "Verdict": lambda row: badge(row["verdict"] or "undecided"),
        "Command": lambda row: code(row["command"]),
    }
    sources = {
        "Place": "place",
        "Compared": "at",
        "Quantity": "quantity",
        "n": "n",
        "Effect": "effect",
        "Command": "command",
    }
    shown = [name for name in columns if sources.get(name, "claim") in rows and (link or name != "Figure")]
    return shown, [[columns[name](row) for name in shown] for _, row in rows.iterrows()]


def _effect(row: pd.Series) -> str:
    """The effect with its interval, if it has one."""
    low, high = number(row.get("low", "")), number(row.get("high", ""))
    return number(row["effect"]) + (f" [{low}, {high}]" if low and high else "")
