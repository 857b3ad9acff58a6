"""Cards of figures: the picture, the claim, the verdicts and, if asked for, the command and the table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from experiments.figures.caption import verdict_on
from experiments.report import figure_page
from experiments.report.figures import Figure, Results
from experiments.report.markup import escaped, fenced, filterable


def linked(figures: Iterable[Figure], paper: str, verdicts: pd.DataFrame) -> str:
    """Cards for a page beside the folder ``paper``, which holds the page of each figure; a card leads to it."""
    cards = []
    for figure in figures:
        here = f"{paper}/{figure.name.rpartition('/')[2]}.md"
        shown = [_thumbnail(figure, figure.results[0], paper, here)] if figure.results else []
        states = figure_page.states(figure, _own(figure, verdicts))
        cards.append(_card(f"**[{_title(figure)}]({here})**", *shown, escaped(figure.claim), states))
    return _cards(cards)


def whole(figures: Iterable[Figure], pictures: str, verdicts: pd.DataFrame, results: Path) -> str:
    """Cards that stand for themselves, one per measured figure, with everything that there is to know of it.

    Args:
        figures: of one paper.
        pictures: the folder in the site that holds the files of :func:`files`, seen from the page.
        verdicts: the ledger.
        results: the folder of the ledger, for the verdicts in words.
    """
    cards = []
    for figure in figures:
        for one in figure.results:
            source = f"{pictures}/{figure.paper}/{one.folder.name}/{one.picture.name}"
            table = f"{pictures}/{figure.paper}/{one.folder.name}/{one.csv.name}"
            told = verdict_on(figure.name, results)
            cards.append(
                _card(
                    f"**{_title(figure)}**",
                    _thumbnail(figure, one, f"{pictures}/{figure.paper}", source),
                    escaped(figure.claim),
                    figure_page.states(figure, _own(figure, verdicts)),
                    *([f"{told[0].upper()}{told[1:]}."] if told else []),
                    fenced(figure_page.command(figure), "sh"),
                    f"[Table (CSV, {len(one.table)} rows)]({table}){{ download }}, `results/{one.origin['figure']}`",
                )
            )
    return _cards(cards)


def files(figures: Iterable[Figure]) -> dict[str, Path]:
    """Path below the folder of pictures -> file, of all measured figures."""
    return {
        f"{figure.paper}/{one.folder.name}/{file.name}": file
        for figure in figures
        for one in figure.results
        for file in (one.picture, one.csv)
    }


def _own(figure: Figure, verdicts: pd.DataFrame) -> pd.DataFrame:
    return verdicts[verdicts["figure"] == figure.name]


def _title(figure: Figure) -> str:
    return escaped(f"{figure.label}: {figure.title}")


def _thumbnail(figure: Figure, one: Results, folder: str, target: str) -> str:
    """A small picture that leads to ``target``."""
    source, (width, height) = f"{folder}/{one.folder.name}/{one.picture.name}", one.size
    return f'[![{_title(figure)}]({source}){{ width="{width}" height="{height}" loading="lazy" }}]({target})'


def _card(*parts: str) -> str:
    return "\n\n".join(['<div class="card" markdown>', *parts, "</div>"])


def _cards(cards: list[str]) -> str:
    return filterable("figures", '<div class="cards" markdown>\n\n' + "\n\n".join(cards) + "\n\n</div>")
