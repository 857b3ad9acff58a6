"""The pages over all figures: the start, the gallery, the ledger of claims and Table 1."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from experiments.errors import UserError
from experiments.report import figure_page, ledger
from experiments.report.figures import PAPERS, Figure, papers
from experiments.report.markup import badge, code, escaped, filterable, mean, number, table

WIDE = "---\nhide: [navigation, toc]\n---\n\n"
LEDGER = "---\nhide: [navigation, toc]\nsearch: {boost: 0.5}\n---\n\n"
TABLE_1 = "nullspace/table1"


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
    cards = []
    for figure in figures:
        here = f"{paper}/{figure.name.rpartition('/')[2]}"
        own = verdicts[verdicts["figure"] == figure.name]
        shown = ""
        if figure.results:
            one = figure.results[0]
            source = f"{paper}/{one.folder.name}/{one.picture.name}"
            words = escaped(f"{figure.label}: {figure.title}")
            size = f'width="{one.size[0]}" height="{one.size[1]}"'
            shown = f'[![{words}]({source}){{ {size} loading="lazy" }}]({here}.md)'
        parts = [f"**[{escaped(figure.label)}: {escaped(figure.title)}]({here}.md)**", shown, escaped(figure.claim)]
        parts = ['<div class="card" markdown>', *parts, figure_page.states(figure, own), "</div>"]
        cards.append("\n\n".join(parts))
    inside = '<div class="cards" markdown>\n\n' + "\n\n".join(cards) + "\n\n</div>"
    title = escaped(PAPERS.get(paper, paper))
    return f"{WIDE}# {title}\n\n{filterable('figures', inside)}\n"


def claims(figures: list[Figure], verdicts: pd.DataFrame, explained: str) -> str:
    """``claims.md``: the whole ledger; ``explained`` is how it was judged, empty before the first judgement."""
    if explained:
        head = f"{explained}\n\n[The ledger (CSV)]({ledger.FILE}){{ download }}"
    else:
        head = f"No `results/{ledger.FILE}` yet: `python scripts/claims.py` judges by the rules in `conf/claims/`."
    counts = table(["Verdict", "Lines"], [[badge(name), str(count)] for name, count in ledger.tally(verdicts).items()])
    body = filterable("claims", ledger.whole(verdicts, {figure.name for figure in figures}))
    return f"{LEDGER}# Claims\n\n{head}\n\n{counts}\n\n{body}\n"


def table_1(figures: list[Figure], results: Path) -> str:
    """``table1.md``: what the settings that tuning found give, and the trials behind them, if they were measured.

    Raises:
        UserError: a table of trials is damaged.
    """
    head = "# Table 1\n\nTable 1 of Wu et al. 2025 has the settings of either side, tuned.\n\n"
    parts = []
    for figure in figures:
        if figure.name == TABLE_1 and figure.results:
            parts += [escaped(figure.claim), f"All that was measured is on [its page](figures/{figure.name}.md)."]
            parts += [_ends(figure.results[0].table) or "Its table has no losses at the end of runs."]
    if not parts:
        parts += [f"{badge('not measured')} To measure it: {code(f'make reproduce FIG={TABLE_1}')}."]
    for path in trials(results):
        parts += [f"## {escaped(path.stem)}", f"[Trials (CSV)](tuning/{path.name}){{ download }}", _trials(path)]
    return head + "\n\n".join(parts) + "\n"


def trials(results: Path) -> list[Path]:
    """The tables of ``scripts/tune.py``."""
    return sorted((results / "tuning").glob("*.csv"))


def _trials(path: Path) -> str:
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise UserError(f"the trials '{path}' are not a table; make them again with scripts/tune.py") from error
    cells = [[number(value) for value in row] for row in rows.to_numpy()]
    return filterable("trials", table([escaped(name) for name in rows], cells))


def _ends(rows: pd.DataFrame) -> str:
    """Losses and metrics at the end per data set, optimizer and side; the reason where there are none."""
    keys = [key for key in ("data", "model", "optimizer", "teleport") if key in rows]
    values = [name for name in ("train_loss", "test_loss", "test_metric") if name in rows]
    if not keys or not values:
        return ""
    cells = []
    for key, group in rows.groupby(keys, sort=False, dropna=False):
        measured = group[group["reason"] == ""]
        if measured.empty:
            cells.append([*map(escaped, key), *[""] * len(values), escaped(group["reason"].iloc[0])])
            continue
        ends = measured[measured["event"] == "evaluation"] if "event" in measured else measured
        last = ends.groupby("seed").tail(1) if "seed" in ends else ends.tail(1)
        means = [mean(last[name].mean(), last[name].std(ddof=1)) for name in values]
        cells.append([*map(escaped, key), *means, f"{len(last)} seeds"])
    return filterable("rows", table([*keys, *(name.replace("_", " ") for name in values), ""], cells))


def _counts(verdicts: pd.DataFrame, names: list[str]) -> str:
    rows = verdicts[verdicts["figure"].isin(names)]
    return " ".join(f"{badge(name)}&nbsp;{count}" for name, count in ledger.tally(rows).items()) or badge("no claim")
