"""What a picture's caption says: the claim, the verdicts on it, and how the figure is smaller than the paper's."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from omegaconf import DictConfig

from experiments.errors import UserError

LEDGER = "claims.csv"
"""The verdicts of ``scripts/claims.py``, in the folder of the results."""
AGAIN = "write it again with: python scripts/claims.py"
NEEDED = {"figure", "claim", "case", "at", "verdict"}
ORDER = ("holds", "does not hold", "undecided", "not measured")
MOST = 6
"""Of more statements than this a caption has the counts alone."""
PLACE = re.compile(r"\b(Figure|Table|section)")
"""A claim that names such a place is shown by the paper on runs of its own, which a figure here may be smaller than."""
WORDS = {"data": "data set", "model": "network", "lr": "rate", "optimizer_here": "optimizer", "channels": "width"}
"""The last part of a key of the ledger's cases -> its word."""


def paragraphs(figure: DictConfig, verdict: str = "", reduced: bool = True) -> list[str]:
    """The claim, how the figure is smaller if ``reduced``, and the ``verdict``, each a paragraph, some empty."""
    claim = " ".join(str(figure.claim).split())
    own = claim.startswith("Our own question")
    smaller = " ".join(str(figure.get("reduced") or "").split()) if reduced else ""
    size = "Smaller than in the paper" if PLACE.search(claim) and not own else "Size"
    return [
        claim if own else f"Claim: {claim}",
        f"{size}: {smaller}" if smaller else "",
        f"Verdict: {verdict}" if verdict else "",
    ]


def verdict_on(name: str, results: Path) -> str:
    """The verdicts on each statement about a figure, counted per comparison; empty if there is no ledger.

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
    if lacking := NEEDED - set(rows[0] if rows else ()):
        raise UserError(f"the ledger '{path}' lacks the column '{min(lacking)}'; {AGAIN}")
    found = [row for row in rows if row["figure"] == name and row["verdict"] in ORDER]
    if not found:
        return "no rule in the ledger of claims judges this figure"
    statements: dict[str, list[Mapping[str, str]]] = {}
    for row in found:
        if row["verdict"] != "not measured" or not _unmeasured(row, found):
            statements.setdefault(row["claim"], []).append(row)
    if not statements:
        return "nothing that the ledger of claims compares in this figure is measured yet"
    if len(statements) > MOST:
        counts = Counter(row["verdict"] for rows in statements.values() for row in rows)
        return f"{len(statements)} statements, which results/claims.md lists: {_counted(counts)}"
    if len(statements) == 1:
        ((claim, rows),) = statements.items()
        if claim.startswith("The same "):  # as another entry of the ledger; the figure's own claim says it in full
            return f"the claim {_outcomes(rows)}"
        return _of_statement(claim, rows)
    told = [_of_statement(claim, rows) for claim, rows in statements.items()]
    return ". ".join(f"({number}) {each}" for number, each in enumerate(told, 1))


def _unmeasured(row: Mapping[str, str], rows: Iterable[Mapping[str, str]]) -> bool:
    """Whether nothing of the row's statement is measured in the way that the row compares."""
    alike = [other for other in rows if (other["claim"], other["at"]) == (row["claim"], row["at"])]
    return all(other["verdict"] == "not measured" for other in alike)


def _of_statement(claim: str, rows: Iterable[Mapping[str, str]]) -> str:
    """For instance ``Teleports are faster: at equal epochs holds in 4 of 6 comparisons (by network), not in 2``."""
    return f"{claim.removesuffix('.')}: {_outcomes(rows)}"


def _outcomes(rows: Iterable[Mapping[str, str]]) -> str:
    """For instance ``at equal epochs holds in 4 of 6 comparisons (by network), not in 2``."""
    counts: dict[str, Counter[str]] = {}
    keys: dict[str, None] = {}
    for row in rows:
        counts.setdefault(row["at"] or "", Counter())[row["verdict"]] += 1
        keys |= dict.fromkeys(re.findall(r"([\w.]+)=", row["case"] or ""))
    words = [key.rpartition(".")[2] for key in keys]
    words = [WORDS.get(word, word.replace("_", " ")) for word in words]
    by = f" (by {_listed(words)})" if words else ""
    told: dict[str, list[str]] = {}
    for number, (at, found) in enumerate(counts.items()):
        where = f"at {at.replace('tuned control', 'equal seconds against the tuned control')}" if at else ""
        alike = [same for same in list(counts)[:number] if counts[same] == found]
        told.setdefault(alike[0] if alike else at, []).append(where)
    parts = [
        f"{_listed(wheres)} {_counted(counts[at], by if number == 0 else '')}".strip()
        for number, (at, wheres) in enumerate(told.items())
    ]
    return "; ".join(parts)


def _listed(words: list[str]) -> str:
    """For instance ``one, another and a third``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _counted(found: Counter[str], by: str = "") -> str:
    """For instance ``holds in 4 of 6 comparisons, not in 1, undecided in 1``."""
    (first, count), *others = [(verdict, found[verdict]) for verdict in ORDER if found[verdict]]
    if found.total() == 1:
        return first
    if not others:
        every = "both" if count == 2 else f"all {count}"
        return f"{first} in {f'any of {count}' if 'not' in first else every} comparisons{by}"
    more = [f"{verdict.replace('does not hold', 'not')} in {number}" for verdict, number in others]
    return ", ".join([f"{first} in {count} of {found.total()} comparisons{by}", *more])
