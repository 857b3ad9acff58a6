"""Runs that are there, found by what they compute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from experiments.configuration.config import Config
from experiments.configuration.identity import run_folder
from experiments.configuration.validate import resolve
from experiments.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def complete(folder: Path) -> bool:
    """Whether the run in ``folder`` went to its end."""
    return (folder / "summary.json").is_file()


def find(config: DictConfig | Config) -> Path | None:
    """The folder of the complete run of ``config``, or ``None``.

    Raises:
        UserError: a configuration that is no run.
    """
    folder = run_folder(resolve(config))
    return folder if complete(folder) else None


def load_table(folder: Path, name: str) -> pd.DataFrame:
    """A table of the run in ``folder``: curve, teleports, teleport_layers, teleport_events or positions.

    Raises:
        UserError: it is not there or not readable.
    """
    import pandas as pd

    path = folder / f"{name}.csv"
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read; delete the folder and make the run again") from error
