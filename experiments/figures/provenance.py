"""The origin of a figure's table: the command, the commit, the runs and their hardware (``provenance.json``)."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from experiments import files
from experiments.configuration.tuned import is_untuned
from experiments.errors import UserError
from experiments.figures.runs import FigureRun, override_key
from experiments.run.runs import REMEDY, read_summary

FILE = "provenance.json"
AGAIN = "make the figure again with run.py"


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


def uncommitted(origin: dict[str, Any]) -> str:
    """What of a figure was made with changes that are in no commit, in words; empty if nothing was."""
    if str(origin["commit"]).endswith("+"):
        return "the figure is made with uncommitted changes"
    marked = [number for number, own in enumerate(origin["environments"]) if str(own.get("commit")).endswith("+")]
    count = sum(run["environment"] in marked for run in origin["runs"].values())
    return f"{count} of {len(origin['runs'])} runs of the figure were made with uncommitted changes" if count else ""


def environment_of(folder: Path) -> dict[str, Any]:
    """The environment of a run: hardware, threads and versions.

    Raises:
        UserError: the file cannot be read, is damaged, or lacks an entry.
    """
    path = folder / "environment.json"
    own = files.read_json(path, REMEDY)
    texts = isinstance(own.get("device_name"), str) and isinstance(own.get("device"), str)
    if not texts or not isinstance(own.get("threads"), int) or not isinstance(own.get("packages"), dict):
        raise UserError(f"'{path}' does not say on what the run was made; {REMEDY}")
    return own


def note_of(folder: Path) -> str:
    """The note that must accompany results on the run's data.

    Raises:
        UserError: the summary of the run cannot be read.
    """
    return str(read_summary(folder).get("note") or "")


def hardware_of(folder: Path) -> str:
    """A run's hardware, threads, torch version and clock as a text; seconds are compared only if these are equal."""
    own = environment_of(folder)
    threads = f"{own['threads']} thread" + ("s" if own["threads"] != 1 else "")
    torch = own["packages"].get("torch")
    clock = ", processor time" if own.get("clock") == "processor" else ""  # earlier runs have the wall clock's
    return f"{own['device_name']} ({own['device'].partition(':')[0]}), {threads}, torch {torch}{clock}"


def write(folder: Path, content: dict[str, Any], table: str) -> None:
    """Write ``provenance.json`` with the checksum of the figure's table.

    Raises:
        UserError: it cannot be written.
    """
    digest = hashlib.sha256(table.encode()).hexdigest()
    files.write_json(folder / FILE, {**content, "table_sha256": digest}, indent=1)


def read(path: Path) -> dict[str, Any]:
    """A figure's ``provenance.json``.

    Raises:
        UserError: it cannot be read, is damaged, or lacks the name of its figure or its command.
    """
    content = files.read_json(path, AGAIN)
    overrides = content.get("overrides")
    if not isinstance(content.get("figure"), str) or not isinstance(overrides, list):
        raise UserError(f"'{path}' does not name its figure; {AGAIN}")
    if not all(isinstance(override, str) for override in overrides):
        raise UserError(f"'{path}' has other overrides than texts; {AGAIN}")
    return content


def missing(folder: Path) -> int:
    """How many runs of the figure in ``folder`` are missing in it, without those of pairs that are not tuned.

    Raises:
        UserError: as :func:`read`.
    """
    return sum(not is_untuned(str(run["reason"])) for run in read(folder / FILE)["failed"])


def check_table(path: Path, content: bytes, origin: dict[str, Any]) -> bool:
    """Whether a figure's table is shown to be what was written; one of earlier code has no checksum.

    Raises:
        UserError: it is not what was written.
    """
    expected = origin.get("table_sha256")
    if expected is None:
        return False
    text = content.replace(b"\r\n", b"\n")  # as some settings of git check files out
    if expected != hashlib.sha256(text).hexdigest():
        raise UserError(
            f"the table '{path}' is damaged or was changed: it does not have the checksum in {FILE}; {AGAIN}, or get "
            "the file back from git"
        )
    return True
