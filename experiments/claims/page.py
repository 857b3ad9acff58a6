"""The verdicts as a table and as a page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from experiments.claims.judging import Judged
from experiments.claims.ledger import Line
from experiments.claims.understood import Understood
from experiments.claims.verdicts import FAILS, HOLDS, NOT_MEASURED, UNDECIDED

COLUMNS = (
    "paper", "id", "claim", "case", "at", "place", "figure", "quantity", "direction", "smallest", "unit", "rule",
    "n", "missing", "diverged", "effect", "low", "high", "interval", "verdict", "rule_first", "reason", "command",
)  # fmt: skip
"""The columns of ``claims.csv``."""

INTRODUCTION = """\
# Verdicts on the papers' claims

One line per comparison, judged on the table of its figure by the rule in `conf/claims/`. Written by `make claims`
(`python scripts/claims.py`); `claims.csv` holds the same numbers. A claim **holds** if the whole interval is
beyond the smallest effect that counts, in the claimed direction; it **does not hold** if the whole interval is short
of it; otherwise it is **undecided**, as with fewer than 3 pairs. Intervals are the 95 % intervals of Student's t for
the mean over pairs (`95 % t`; of a relative effect, for the mean logarithm of the ratio), or for the slope of a
growth (`95 % slope`). Claims about every value, or about some, are decided by all of them, and their range is given.

- *equal epochs*: both runs at the same epoch. *equal seconds*: both after the seconds in which the second run, as a
  rule the one without teleports, reaches that epoch. *tuned control*: equal seconds, with settings tuned for both
  sides.
- A run that diverged counts with the value that it started from.
- Lines are judged one by one. Where an effect is exactly the smallest that counts, 1 line in 20 is decided by chance.
- *rule first*: whether the rule was committed before the code that made the table and each of its runs. A verdict on
  an older table is marked `(older table)`: its rule could have been written with the numbers in view.
- Beside a claim that does not hold is what was tried to understand it (`understood.yaml`), and what is not known.
"""


def rows(judged: list[Judged]) -> list[dict[str, Any]]:
    """The rows of ``claims.csv``; numbers with six digits, so that they do not depend on the last bits."""
    return [
        {
            **{
                key: getattr(each.line, key)
                for key in ("paper", "id", "claim", "case", "at", "place", "figure", "quantity")
            },
            **{key: getattr(each.line, key) for key in ("direction", "smallest", "unit", "rule")},
            **{key: getattr(each.verdict, key) for key in ("n", "interval", "verdict", "reason")},
            **{key: _digits(getattr(each.verdict, key)) for key in ("effect", "low", "high")},
            "missing": each.missing,
            "diverged": each.diverged,
            "rule_first": each.rule_first,
            "command": each.command,
        }
        for each in judged
    ]


def page(judged: list[Judged], understood: Mapping[str, Understood]) -> str:
    """The page ``claims.md``; beside a claim that does not hold, what was tried to understand it."""
    parts = [INTRODUCTION, _summary(judged)]
    for paper, of_paper in groupby(judged, key=lambda each: each.line.paper):
        parts.append(f"## {paper}\n")
        for _, of_claim in groupby(of_paper, key=lambda each: each.line.id):
            parts.append(_claim(list(of_claim), understood))
    return "\n".join(parts)


def _summary(judged: list[Judged]) -> str:
    order = (HOLDS, FAILS, UNDECIDED, NOT_MEASURED)
    lines = ["| lines | " + " | ".join(order) + " | claims |", "|---" * (len(order) + 2) + "|"]
    for paper, of_paper in groupby(judged, key=lambda each: each.line.paper):
        own = list(of_paper)
        counts = Counter(each.verdict.verdict for each in own)
        claims = len({each.line.id for each in own})
        lines.append(f"| {paper} | " + " | ".join(str(counts[name]) for name in order) + f" | {claims} |")
    return "\n".join(lines) + "\n"


def _claim(judged: list[Judged], understood: Mapping[str, Understood]) -> str:
    line = judged[0].line
    text = [f"### {line.id}\n", f"{line.claim} ({line.place})\n", f"Rule: {rule(line)}\n"]
    text += ["| comparison | n | effect | interval | verdict | rule first |", "|---" * 6 + "|"]
    for each in judged:
        found, case = each.verdict, ", ".join(part for part in (each.line.case, each.line.at) if part) or "all"
        bounds = (
            "" if found.low is None else f"{number(found.low, line)} to {number(found.high, line)} ({found.interval})"
        )
        verdict = f"**{found.verdict}**" if found.verdict in (HOLDS, FAILS) else found.verdict
        verdict += " (older table)" if each.rule_first == "no" else ""
        notes = [found.reason, f"{each.diverged} runs diverged" if each.diverged else ""]
        notes += [f"{each.missing} pairs incomplete" if each.missing else ""]
        if said := "; ".join(note for note in notes if note):
            verdict += f": {said}"
        cells = [case, str(found.n), number(found.effect, line), bounds, verdict, each.rule_first]
        text.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    commands = dict.fromkeys(each.command for each in judged)
    text += ["", *(f"    {command}" for command in commands), ""]
    if line.id in understood and any(each.verdict.verdict == FAILS for each in judged):
        text.append(str(understood[line.id]))
    return "\n".join(text)


def rule(line: Line) -> str:
    """The rule of a claim in words."""
    amount = number(line.smallest, line).lstrip("+")
    against = f"{line.value:g}" if line.value is not None else "the other side's"
    of = (
        f"the exponent of {line.quantity} in {line.growth}" if line.growth else f"{line.reduce} {line.quantity}".strip()
    )
    by = f" by at least {amount}" if line.smallest else ""
    what = {
        "lower": f"lower than {against}{by}",
        "higher": f"higher than {against}{by}",
        "not lower": f"not lower than {against} by {amount} or more",
        "not higher": f"not higher than {against} by {amount} or more",
        "equal": f"within {amount} of {against}",
        "different": f"different from {against} by at least {amount}",
    }[line.direction]
    which = {"mean": "on average over", "every": "for every one of", "some": "for some of"}[line.rule]
    if line.growth:
        return f"{of} is {what}."
    over = " x ".join([*line.pairs, *line.observations]) or "the rows"
    place = "" if line.step is None else f" at step {line.step}"
    if line.epoch is not None:
        place = " at the last epoch" if line.epoch == "last" else f" at epoch {line.epoch:g}"
    return f"{of}{place} is {what}, {which} {over}."


def number(value: float | None, line: Line) -> str:
    """An effect as text, a relative one in percent."""
    if value is None or math.isnan(value):
        return ""
    return f"{100 * value:+.3g} %" if line.unit == "relative" else f"{value:+.3g}"


def _digits(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6g}"
