"""What a picture's caption says: the claim, the verdict on it, and how the figure is smaller than the paper's."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from omegaconf import DictConfig

from experiments.errors import UserError

LEDGER = "claims.csv"
"""The verdicts of ``scripts/claims.py``, in the folder of the results."""
AGAIN = "write it again with: python scripts/claims.py"
ORDER = ("holds", "does not hold", "undecided")


def paragraphs(figure: DictConfig, verdict: str = "", reduced: bool = True) -> list[str]:
    """The claim, how the figure is smaller if ``reduced``, and the ``verdict``, each a paragraph, some empty."""
    claim = " ".join(str(figure.claim).split())
    own = claim.startswith("Our own question")
    smaller = " ".join(str(figure.get("reduced") or "").split()) if reduced else ""
    return [
        claim if own else f"Claim: {claim}",
        f"Smaller than in the paper: {smaller}" if smaller else "",
        f"Verdict: {verdict}" if verdict else "",
    ]


def verdict_on(name: str, results: Path) -> str:
    """The verdicts on the lines of a figure, counted per comparison; empty if it has none, or there is no ledger.

    Args:
        name: of the figure.
        results: the folder with the ledger.

    Raises:
        UserError: the ledger is damaged.
    """
    path = results / LEDGER
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the ledger '{path}' cannot be read; {AGAIN}") from error
    if lacking := {"figure", "at", "verdict"} - set(rows[0] if rows else ()):
        raise UserError(f"the ledger '{path}' lacks the column '{min(lacking)}'; {AGAIN}")
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        if row["figure"] == name and row["verdict"] in ORDER:
            counts.setdefault(row["at"] or "", Counter())[row["verdict"]] += 1
    return "; ".join(_told(at, found) for at, found in counts.items())


def _told(at: str, found: Counter[str]) -> str:
    """For instance ``at equal epochs it holds in 4 of 6 comparisons, does not hold in 1, is undecided in 1``."""
    prefix = f"at {at.replace('tuned control', 'equal seconds against the tuned control')} it " if at else "it "
    words = [(verdict, "is undecided" if verdict == "undecided" else verdict) for verdict in ORDER if found[verdict]]
    if found.total() == 1:
        return prefix + words[0][1]
    first, *others = [(found[verdict], word) for verdict, word in words]
    if not others:
        which = f"any of {first[0]}" if "not" in first[1] else f"all of {first[0]}"
        return f"{prefix}{first[1]} in {which} comparisons"
    told = [
        f"{first[1]} in {first[0]} of {found.total()} comparisons",
        *(f"{word} in {count}" for count, word in others),
    ]
    return prefix + ", ".join(told)
