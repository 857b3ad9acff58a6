"""Figures drawn from their tables."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from hydra import initialize_config_dir
from omegaconf import DictConfig

from experiments import files
from experiments.configuration import config
from experiments.configuration.options import CONF
from experiments.errors import UserError
from experiments.figures import caption, page, provenance, table
from experiments.figures.choice import chosen
from experiments.figures.composition import compose_config
from experiments.figures.page import Page
from experiments.figures.subjects import DRAWINGS
from experiments.pools import process_pool

COMMITTED_SCALE = "quick"


def draw(figure: DictConfig, rows: pd.DataFrame, verdict: str = "") -> Page:
    """The picture of a figure's table, with its caption.

    Args:
        figure: the figure's configuration; its runs and its measure are not used.
        rows: its table.
        verdict: on the claim, in words.

    Raises:
        UserError: an unknown drawing, an unknown option, or a table that the drawing cannot show.
    """
    drawing, options = chosen("drawing", figure.draw, DRAWINGS)
    with page.settings():
        picture: Page = drawing(rows, figure.title, **options)
        whole = rows["scale"].iloc[0] == COMMITTED_SCALE
        page.caption(picture, caption.paragraphs(figure, verdict, reduced=whole))
    return picture


def verdict_of(folder: Path, figure: str) -> str:
    """The verdict on a figure whose results are in ``folder``; verdicts are on the committed scale alone.

    Raises:
        UserError: the ledger is damaged.
    """
    whole = folder.resolve().parts[-2:] == tuple(figure.split("/"))
    return caption.verdict_on(figure, folder.parent.parent) if whole else ""


def redraw(folder: Path) -> list[Path]:
    """Draw a figure again from its table with the current ``conf/``; neither trains nor loads torch.

    Args:
        folder: the folder of the figure's results. Hydra must have been initialised with the configuration directory.

    Returns:
        the pictures written.

    Raises:
        UserError: the table, the record of its origin or the figure's configuration is missing, damaged or invalid.
    """
    files.clean_shared(folder)
    origin = provenance.read(folder / provenance.FILE)
    name = origin["figure"].rpartition("/")[2]
    path, checked = folder / f"{name}.csv", False
    try:
        figure = compose_config(origin["overrides"]).figure
        content = table.read_bytes(path)
        checked = provenance.check_table(path, content, origin)
        picture = draw(figure, table.decode(content, str(path)), verdict_of(folder, origin["figure"]))
    except UserError as error:
        named = str(error) if str(folder) in str(error) else f"'{folder / provenance.FILE}': {error}"
        raise UserError(named) from error
    except Exception as error:
        if checked:  # the files are what was written, so the fault is not theirs
            raise
        raise UserError(
            f"'{path}' or '{folder / provenance.FILE}' is damaged: no figure can be drawn from them "
            f"({type(error).__name__}); {provenance.AGAIN}"
        ) from error
    return page.save(picture, folder, name)


@dataclass
class Redrawn:
    """What became of one figure: its pictures, or why there are none."""

    folder: Path
    pictures: list[Path] = field(default_factory=list)
    mistake: str = ""  # of the user's files, in one sentence
    bug: str = ""  # the traceback


def redraw_all(folders: Sequence[Path], processes: int = 2) -> Iterator[Redrawn]:
    """Draw figures again, each in the order of ``folders``; none stops the others.

    Args:
        folders: as of :func:`redraw`.
        processes: side by side; more than there are processors are not used.
    """
    processes = min(processes, os.cpu_count() or 1, (len(folders) + 1) // 2)
    if processes < 2:
        yield from map(_attempt, folders)
        return
    with process_pool(processes) as pool:
        yield from pool.map(_attempt, folders)


def _attempt(folder: Path) -> Redrawn:
    try:
        with configurations():
            return Redrawn(folder, pictures=redraw(folder))
    except UserError as error:
        return Redrawn(folder, mistake=" ".join(str(error).split()))
    except Exception:  # a bug in one drawing must not keep the others from being drawn
        return Redrawn(folder, bug=traceback.format_exc())


@contextmanager
def configurations() -> Iterator[None]:
    """Hydra, initialised with the configuration directory."""
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield
