"""Where a figure's table comes from: the command, the code, the runs and what they ran on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.figures.runs import FigureRun, override_key


def significant(overrides: list[str]) -> list[str]:
    """The overrides that say what a figure is: all but where and with what its runs are made."""
    return [
        override
        for override in overrides
        if override_key(override).split(".")[0] != "machine" and override_key(override) != "data.root"
    ]


def record(name: str, overrides: list[str], runs: list[FigureRun], commit: str | None) -> dict[str, Any]:
    """The content of ``provenance.json``.

    Args:
        name: of the figure, ``<paper>/<name>``.
        overrides: of the command line.
        runs: of the figure, made or failed.
        commit: of the code that gathered and drew; each run has its own in its environment.
    """
    told = significant(overrides)
    environments: list[dict[str, Any]] = []
    made = {}
    for run in runs:
        if run.folder is None:
            continue
        own = environment_of(run.folder)
        if own not in environments:
            environments.append(own)
        made[run.folder.name] = {"environment": environments.index(own), "labels": run.labels}
    return {
        "figure": name,
        "command": " ".join(["python run.py", *told]),
        "overrides": told,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit,
        "environments": environments,
        "runs": made,
        "failed": [{"labels": run.labels, "reason": run.reason} for run in runs if run.reason],
    }


def environment_of(folder: Path) -> dict[str, Any]:
    """What a run was computed with.

    Raises:
        UserError: the run's record of it cannot be read.
    """
    return _json(folder / "environment.json")


def note_of(folder: Path) -> str:
    """What is to be said of a run's data wherever its results are shown.

    Raises:
        UserError: the run's summary cannot be read.
    """
    return str(_json(folder / "summary.json").get("note") or "")


def hardware_of(folder: Path) -> str:
    """What a run ran on, in a few words: runs whose words differ are not compared by their seconds."""
    own = environment_of(folder)
    threads = f"{own['threads']} thread" + ("s" if own["threads"] != 1 else "")
    return f"{own['device_name']} ({own['device'].partition(':')[0]}), {threads}, torch {own['packages']['torch']}"


def read(path: Path) -> dict[str, Any]:
    """A figure's ``provenance.json``.

    Raises:
        UserError: it cannot be read, or does not name its figure.
    """
    content = _json(path)
    if not isinstance(content.get("figure"), str) or not isinstance(content.get("overrides"), list):
        raise UserError(f"'{path}' does not say which figure it is of; make the figure again with run.py")
    return content


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read; delete its folder and make it again with run.py") from error
    if not isinstance(content, dict):
        raise UserError(f"'{path}' is not what it should be; delete its folder and make it again with run.py")
    return content
