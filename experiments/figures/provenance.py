"""The origin of a figure's table: the command, the commit, the runs and their hardware (``provenance.json``)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.figures.runs import FigureRun, override_key


def significant(overrides: list[str]) -> list[str]:
    """The overrides that affect the content of a figure: all except those of ``machine`` and ``data.root``."""
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
        runs: of the figure, finished or failed.
        commit: of the code that measured and drew; each run has its own commit in its environment.
    """
    kept = significant(overrides)
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
        "command": " ".join(["python run.py", *kept]),
        "overrides": kept,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit,
        "environments": environments,
        "runs": made,
        "failed": [{"labels": run.labels, "reason": run.reason} for run in runs if run.reason],
    }


def environment_of(folder: Path) -> dict[str, Any]:
    """The environment of a run: hardware, threads and versions.

    Raises:
        UserError: the file cannot be read.
    """
    return _json(folder / "environment.json")


def note_of(folder: Path) -> str:
    """The note that must accompany results on the run's data.

    Raises:
        UserError: the summary of the run cannot be read.
    """
    return str(_json(folder / "summary.json").get("note") or "")


def hardware_of(folder: Path) -> str:
    """A run's hardware, threads and torch version as a text; seconds are compared only if the texts are equal."""
    own = environment_of(folder)
    threads = f"{own['threads']} thread" + ("s" if own["threads"] != 1 else "")
    return f"{own['device_name']} ({own['device'].partition(':')[0]}), {threads}, torch {own['packages']['torch']}"


def read(path: Path) -> dict[str, Any]:
    """A figure's ``provenance.json``.

    Raises:
        UserError: it cannot be read, or lacks the name of its figure.
    """
    content = _json(path)
    if not isinstance(content.get("figure"), str) or not isinstance(content.get("overrides"), list):
        raise UserError(f"'{path}' does not name its figure; make the figure again with run.py")
    return content


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read; delete its folder and make it again with run.py") from error
    if not isinstance(content, dict):
        raise UserError(f"'{path}' is not a JSON object; delete its folder and make it again with run.py")
    return content
