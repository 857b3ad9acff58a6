"""A figure drawn again from its table."""

from __future__ import annotations

from pathlib import Path

from experiments.figures import provenance, style, table
from experiments.figures.draw import draw
from experiments.figures.runs import compose_config


def redraw(folder: Path) -> list[Path]:
    """Draw a figure again from its table, as its file under ``conf/`` says now; never trains, needs no torch.

    Args:
        folder: of the figure's results. Hydra must have been initialised with the configuration directory.

    Raises:
        UserError: a table, a record of its origin or a figure's file that is not there or not right.
    """
    origin = provenance.read(folder / "provenance.json")
    figure = compose_config(origin["overrides"]).figure
    name = origin["figure"].rpartition("/")[2]
    return style.save(draw(figure, table.read(folder / f"{name}.csv")), folder, name)
