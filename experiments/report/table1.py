"""The page of Table 1: the settings that tuning found for either side, what they give, and the trials behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from experiments.configuration.tuned import HOW, NOT_TUNED, TABLE
from experiments.errors import UserError
from experiments.report.figure_page import numbers
from experiments.report.figures import Figure
from experiments.report.markup import badge, code, escaped, filterable, number, table

FIGURE = "nullspace/table1"
SETTINGS = "rates/tuned.yaml"
TUNE = "python scripts/tune.py DATA MODEL OPTIMIZER"


def page(figures: list[Figure], conf: Path, results: Path) -> str:
    """``table1.md``.

    Raises:
        UserError: the table of settings or a table of trials is damaged.
    """
    parts = [
        "# Table 1",
        "Table 1 of Wu et al. 2025 has the settings of either side. Its values are in no source that can be read; "
        "these come from one procedure with equal budgets for both sides.",
        "## Settings",
        _settings(conf / SETTINGS),
        "## What they give",
    ]
    measured = [figure for figure in figures if figure.name == FIGURE and figure.results]
    for figure in measured:
        parts += [f"The picture, the verdicts and the table are on [its page](figures/{figure.name}.md)."]
        parts += [numbers(figure.results[0])]
    if not measured:
        parts += [f"{badge('not measured')} To measure it: {code(f'make reproduce FIG={FIGURE}')}."]
    parts += ["## Trials", *map(_trials, trials(results))]
    if not trials(results):
        parts += ["No trial is recorded yet."]
    return "\n\n".join(parts) + "\n"


def trials(results: Path) -> list[Path]:
    """The tables that ``scripts/tune.py`` wrote."""
    return sorted((results / "tuning").glob("*.csv"))


def _settings(path: Path) -> str:
    """One row per data set, network, optimizer and side; pairs that were not tuned are rows that say so."""
    if not path.exists():
        return f"{badge(NOT_TUNED)} by {code(TUNE)}."
    rows = []
    try:
        for data, models in yaml.safe_load(path.read_text())[TABLE].items():
            for model, optimizers in models.items():
                for optimizer, sides in optimizers.items():
                    rows += [[*map(escaped, (data, model, optimizer)), *cells] for cells in _sides(sides)]
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"the settings in '{path}' cannot be read: they go from data set to model, optimizer, side and key; get "
            "the file back from git"
        ) from error
    head = ["Data set", "Network", "Optimizer", "Side", "Settings", "How"]
    return f"{code(TUNE)} finds them.\n\n{filterable('pairs', table(head, rows))}"


def _sides(sides: Any) -> list[list[str]]:
    """Side, settings and how they were found, of each side of a pair."""
    if sides == NOT_TUNED:
        return [["", badge(NOT_TUNED), ""]]
    how = escaped(sides.get(HOW, ""))
    return [
        [escaped(side), ", ".join(code(f"{key}={value}") for key, value in found.items()), how]
        for side, found in sides.items()
        if side != HOW
    ]


def _trials(path: Path) -> str:
    """A table of trials that opens at a click, and its file."""
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise UserError(f"the trials '{path}' are not a table; make them again with scripts/tune.py") from error
    cells = [[number(value) for value in row] for row in rows.to_numpy()]
    inside = [
        f"[Trials (CSV)](tuning/{path.name}){{ download }}",
        "",
        *table([*map(escaped, rows)], cells).splitlines(),
    ]
    return "\n".join([f'??? note "{path.stem}: {len(rows)} trials"', "", *(f"    {line}" for line in inside)])
