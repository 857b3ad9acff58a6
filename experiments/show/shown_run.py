"""A run as it is shown: its settings, its curve and its teleport events."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from experiments.configuration.identity import NOT_COMPUTED, NOT_COMPUTED_OF
from experiments.errors import UserError
from experiments.run.runs import REMEDY, complete, load_table, moved_layers
from experiments.tracking.rows import flat

CONFIG = "config.yaml"


@dataclass(frozen=True)
class ShownRun:
    """A run on disk.

    Attributes:
        folder: of the run.
        settings: dotted key -> value, of what decides its numbers.
        curve: one row per evaluation, with the columns of ``curve.csv``.
        events: one row per teleport: those of ``teleport_events.csv``, ``norm_before`` and ``norm_after`` (the means of
            its batches' gradient norms) and ``moved_layers``; empty without teleports.
        done: whether the run is complete.
    """

    folder: Path
    settings: dict[str, Any]
    curve: pd.DataFrame
    events: pd.DataFrame
    done: bool


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run that has begun."""
    return (folder / CONFIG).is_file() and (folder / "curve.csv").is_file()


def settings_of(folder: Path) -> dict[str, Any]:
    """The settings of a run.

    Raises:
        UserError: its configuration cannot be read.
    """
    path = folder / CONFIG
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"'{path}' cannot be read: {' '.join(str(error).split())}; {REMEDY}") from error
    if not isinstance(content, dict):
        raise UserError(f"'{path}' is no configuration; {REMEDY}")
    kept = {}
    for group, values in content.items():
        if group in NOT_COMPUTED:
            continue
        own = values if isinstance(values, dict) else {"": values}
        left_out = NOT_COMPUTED_OF.get(group, ())
        kept.update({f"{group}.{key}".rstrip("."): value for key, value in own.items() if key not in left_out})
    return flat(kept)


def read(folder: Path) -> ShownRun:
    """The run in a folder.

    Raises:
        UserError: one of its files cannot be read or is damaged.
    """
    return ShownRun(folder, settings_of(folder), load_table(folder, "curve"), _events(folder), complete(folder))


def _events(folder: Path) -> pd.DataFrame:
    events = load_table(folder, "teleport_events")
    norms = load_table(folder, "teleports").groupby("event")[["gradient_norm_before", "gradient_norm_after"]].mean()
    number = events["event"]
    return events.assign(
        norm_before=number.map(norms["gradient_norm_before"]),
        norm_after=number.map(norms["gradient_norm_after"]),
        moved_layers=moved_layers(folder, events),
    )
