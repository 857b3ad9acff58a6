"""A figure drawn from its table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from omegaconf import DictConfig

from experiments import files
from experiments.errors import UserError
from experiments.figures import provenance, style, table
from experiments.figures.choice import chosen
from experiments.figures.runs import compose_config
from experiments.figures.subjects import DRAWINGS


def draw(figure: DictConfig, rows: pd.DataFrame) -> Figure:
    """The picture of a figure's table.

    Args:
        figure: the figure's configuration, of which ``title`` and ``draw`` are used.
        rows: its table.

    Raises:
        UserError: an unknown drawing, an unknown option, or a table that the drawing cannot show.
    """
    drawing, options = chosen("drawing", figure.draw, DRAWINGS)
    with rc_context(style.RC):
        picture: Figure = drawing(rows, figure.title, **options)
    return picture


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
        picture = draw(figure, table.decode(content, str(path)))
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
    return style.save(picture, folder, name)
