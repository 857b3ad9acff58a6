"""The runs that the words of a command line ask for: folders, and conditions on settings."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from experiments.errors import UserError, one_of
from experiments.show.shown_run import ShownRun, is_run, read, settings_of

GROUPS = ("data", "model", "optimizer", "teleport")


def choose(words: Sequence[str], root: Path) -> list[ShownRun]:
    """The runs that ``words`` ask for, in the order of their folders' names.

    Args:
        words: folders of runs, folders with runs in them, and conditions ``KEY=VALUE[,VALUE...]``, which must all hold.
            A key is that of a run's configuration, such as ``optimizer.lr``, or one of ``data``, ``model``,
            ``optimizer`` and ``teleport`` for its name; values may have the wildcards ``*`` and ``?``.
        root: where runs are looked for if no folder is given.

    Raises:
        UserError: a word is neither, a key or a folder has no run, or no run meets the conditions.
    """
    conditions = [_condition(word) for word in words if "=" in word and not Path(word).exists()]
    folders = [Path(word) for word in words if "=" not in word or Path(word).exists()]
    found = [run for folder in folders or [root] for run in _runs_in(folder)]
    settings = {folder: settings_of(folder) for folder in dict.fromkeys(found)}
    known = sorted({key for each in settings.values() for key in each} | set(GROUPS))
    for key, _ in conditions:
        if key not in known:
            raise one_of("key of the runs", key, known)
    chosen = [folder for folder, own in settings.items() if all(_holds(own, *each) for each in conditions)]
    if not chosen:
        asked = " ".join(word for word in words if "=" in word)
        raise UserError(f"none of the {len(settings)} runs has {asked}; run.py prints the folder of each run")
    return [read(folder) for folder in chosen]


def _condition(word: str) -> tuple[str, list[str]]:
    key, _, values = word.partition("=")
    return key, values.split(",")


def _runs_in(folder: Path) -> list[Path]:
    if is_run(folder):
        return [folder]
    runs = sorted(path for path in folder.iterdir() if is_run(path)) if folder.is_dir() else []
    if not runs:
        raise UserError(f"'{folder}' is no run and has none in it; give the folder of a run, or of runs by --runs DIR")
    return runs


def _holds(settings: dict[str, Any], key: str, values: Sequence[str]) -> bool:
    value = settings.get(f"{key}.name" if key in GROUPS else key)
    return any(_equal(value, wanted) for wanted in values)


def _equal(value: Any, wanted: str) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(wanted) == value
        except ValueError:
            return False
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return fnmatchcase(text, wanted)
