"""The trials of a pair as a tidy table, and the settings that won in the table that runs read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from experiments import files
from experiments.configuration.config import RESULTS_VERSION
from experiments.configuration.tuned import HOW, TABLE
from experiments.errors import UserError
from experiments.figures import table
from experiments.tuning.study import RUNS, Study

HEAD = """\
# What `python scripts/tune.py DATA MODEL OPTIMIZER` found, for rates=tuned: data set -> model -> optimizer -> teleport
# -> key -> value, beside `how` it was found; every trial is in results/tuning/. Written by the script. Those listed
# from the start are the pairs of Table 1 of Wu et al. 2025, in its order.
"""


def trials(pair: dict[str, str], studies: Sequence[Study], scale: str) -> str:
    """The table of all finished trials, as CSV.

    One row per side, trial and seed: the labels, ``trial`` (its number on its side), the keys that were tuned,
    ``score`` (the geometric mean over seeds that was minimised), ``chosen``, and of the run ``loss`` (at the common
    place), ``train_loss`` and ``test_loss`` (at its end), ``seconds`` and ``diverged``; then the last columns of every
    figure's table.
    """
    cells = []
    for study in studies:
        best = study.best().number
        for number, trial in enumerate(study.finished()):
            labels = pair | {"teleport": study.arm.teleport, "trial": number}
            settings = study.arm.settings(trial.params)
            rows = pd.DataFrame(trial.user_attrs[RUNS])
            rows = rows.assign(**settings, score=trial.value, chosen=trial.number == best)
            first = ["seed", *settings, "score", "chosen"]
            cells.append((labels, rows[[*first, *(column for column in rows if column not in first)]]))
    return table.to_csv(table.gather(cells, scale, RESULTS_VERSION))


def write_winners(path: Path, pair: dict[str, str], studies: Sequence[Study], how: dict[str, Any]) -> None:
    """Write the best settings of each side into a table of rates; other pairs stay as they are.

    Raises:
        UserError: the file is there and is no such table, or cannot be written.
    """
    content: Any = {"defaults": ["suite", "_self_"], TABLE: {}}
    if path.exists():
        try:
            content = yaml.safe_load(path.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"'{path}' is no table of tuned settings: {error}; get it back from git") from error
    if not isinstance(content, dict) or not isinstance(content.get(TABLE), dict):
        raise UserError(f"'{path}' is no table of tuned settings: it has no '{TABLE}'; get it back from git")
    of_model = content[TABLE].setdefault(pair["data"], {}).setdefault(pair["model"], {})
    before = of_model.get(pair["optimizer"])
    sides = {key: value for key, value in before.items() if key != HOW} if isinstance(before, dict) else {}
    sides |= {study.arm.teleport: study.arm.settings(study.best().params) for study in studies}
    of_model[pair["optimizer"]] = sides | {HOW: how}
    dumped = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)
    files.write_text(path, HEAD + dumped)
