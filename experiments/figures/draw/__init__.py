"""The drawings: a table and a figure's ``draw`` options -> a picture. Nothing here trains or imports torch."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from omegaconf import DictConfig

from experiments.figures.choice import chosen
from experiments.figures.draw.convolution import draw_convolution
from experiments.figures.draw.curves import draw_curves
from experiments.figures.draw.error_control import draw_error_control
from experiments.figures.draw.spectrum import draw_spectrum
from experiments.figures.draw.trajectory import draw_trajectory
from experiments.figures.draw.walks import draw_walks
from experiments.figures.style import RC

DRAWINGS: dict[str, Callable[..., Figure]] = {
    "convolution": draw_convolution,
    "curves": draw_curves,
    "error_control": draw_error_control,
    "spectrum": draw_spectrum,
    "trajectory": draw_trajectory,
    "walks": draw_walks,
}
"""Name -> function of a table, a title and options of its own (keyword arguments)."""


def draw(figure: DictConfig, table: pd.DataFrame) -> Figure:
    """The picture of a figure's table.

    Raises:
        UserError: an unknown drawing, an option that it has not, or a table that it cannot draw.
    """
    drawing, options = chosen("drawing", figure.draw, DRAWINGS)
    with rc_context(RC):
        return drawing(table, figure.title, **options)
