"""The pages over all figures: the start, the galleries and the ledger of claims."""

from __future__ import annotations

import pandas as pd

from experiments.report import gallery as cards
from experiments.report import ledger
from experiments.report.figures import PAPERS, Figure, papers
from experiments.report.markup import badge, escaped, filterable, table

WIDE = "---\nhide: [navigation, toc]\n---\n\n"
LEDGER = "---\nhide: [navigation, toc]\nsearch: {boost: 0.5}\n---\n\n"


def start(figures: list[Figure], verdicts: pd.DataFrame) -> str:
    """``index.md``: counts, and where to go on."""
    measured = sum(bool(figure.results) for figure in figures)
    rows = [
        [
            f"[{escaped(PAPERS.get(paper, paper))}](figures/{paper}.md)",
            f"{sum(bool(figure.results) for figure in found)} of {len(found)}",
            str(sum(len(one.origin.get("runs", {})) for figure in found for one in figure.results)),
            _counts(verdicts, [figure.name for figure in found]),
        ]
        for paper, found in papers(figures).items()
    ]
    return f"""---
hide: [navigation, toc]
---

# Report

Teleportation moves a network, between two steps of its training, to other parameters with the same loss and a larger
gradient. This report shows every figure of the papers as it comes out here, beside what the paper says that it shows.
`make report` writes it: numbers and verdicts come from the tables in `results/`, claims from `conf/`.

{table(["Paper", "Figures measured", "Runs", "Verdicts"], rows)}

{measured} of {len(figures)} figures are measured.

- [Claims](claims.md): every claim of the papers with its effect, its interval and its verdict
- [Table 1](table1.md): both sides tuned with equal budgets
- [Findings](findings.md): what the runs say, in words, with the command behind each number
- [Checks of correctness](checks.md): what was checked against what, and the worst error
- [Settings](settings.md): what runs are composed of, with the sources of the values
- [What was easy, what was hard](easy_and_hard.md)
- [Speed](speed.md), [robustness](robustness.md), [mutation testing](mutation.md)

The search at the top covers all pages. Lists and tables have a filter by words and labels.
"""


def gallery(paper: str, figures: list[Figure], verdicts: pd.DataFrame) -> str:
    """``figures/<paper>.md``: a card per figure of the paper, with its picture, claim and verdicts."""
    title = escaped(PAPERS.get(paper, paper))
    return f"{WIDE}# {title}\n\n{cards.linked(figures, paper, verdicts)}\n"


def claims(figures: list[Figure], verdicts: pd.DataFrame, explained: str) -> str:
    """``claims.md``: the whole ledger; ``explained`` is how it was judged, empty before the first judgement."""
    if explained:
        head = f"{explained}\n\n[The ledger (CSV)]({ledger.FILE}){{ download }}"
    else:
        head = f"No `results/{ledger.FILE}` yet: `python scripts/claims.py` judges by the rules in `conf/claims/`."
    counts = table(["Verdict", "Lines"], [[badge(name), str(count)] for name, count in ledger.tally(verdicts).items()])
    body = filterable("claims", ledger.whole(verdicts, {figure.name for figure in figures}))
    return f"{LEDGER}# Claims\n\n{head}\n\n{counts}\n\n{body}\n"


def _counts(verdicts: pd.DataFrame, names: list[str]) -> str:
    rows = verdicts[verdicts["figure"].isin(names)]
    return " ".join(f"{badge(name)}&nbsp;{count}" for name, count in ledger.tally(rows).items()) or badge("no claim")
