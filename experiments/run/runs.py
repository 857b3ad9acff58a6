"""Runs on disk, found by the hash of their configuration."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.configuration.config import Config
from experiments.configuration.identity import run_folder
from experiments.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


log = logging.getLogger(__name__)


def complete(folder: Path) -> bool:
    """Whether the run in ``folder`` is complete."""
    return (folder / "summary.json").is_file()


def told_if_complete(folder: Path) -> bool:
    """Whether the run in ``folder`` is complete; if so, it is logged."""
    if not complete(folder):
        return False
    log.info("already done: %s", folder)
    return True


def folder_of(config: Config) -> Path:
    """The folder of the run of a resolved ``config``, whether it exists or not.

    A run is found by its seed and the hash of its configuration, whatever the folder's name begins with: names have
    changed, hashes have not.

    Raises:
        UserError: the file of ``model.weights``, which is part of the hash, cannot be read.
    """
    folder = run_folder(config)
    if folder.exists():
        return folder
    ending = folder.name.rpartition("-s")[2]
    named_otherwise = sorted(folder.parent.glob(f"*-s{ending}")) if folder.parent.is_dir() else []
    return named_otherwise[0] if named_otherwise else folder


def load_table(folder: Path, name: str) -> pd.DataFrame:
    """A table of the run in ``folder``: curve, teleports, teleport_layers, teleport_events or positions.

    Raises:
        UserError: it does not exist or cannot be read.
    """
    import pandas as pd

    path = folder / f"{name}.csv"
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read; delete the folder and make the run again") from error
