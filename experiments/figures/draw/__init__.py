"""The drawings: a table and a figure's ``draw`` options -> a picture. Nothing here trains or imports torch."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from omegaconf import DictConfig

from experiments.figures.choice import chosen
from experiments.figures.draw.angles import draw_angles
from experiments.figures.draw.convolution import draw_convolution
from experiments.figures.draw.coverage import draw_coverage
from experiments.figures.draw.curves import draw_curves
from experiments.figures.draw.error_control import draw_error_control
from experiments.figures.draw.feature_maps import draw_feature_maps
from experiments.figures.draw.interpolation import draw_interpolation
from experiments.figures.draw.landscape import draw_landscape
from experiments.figures.draw.level_curve import draw_level_curve
from experiments.figures.draw.magnitude import draw_magnitude
from experiments.figures.draw.outputs import draw_outputs
from experiments.figures.draw.quiver import draw_quiver
from experiments.figures.draw.rows import draw_rows
from experiments.figures.draw.runtime import draw_runtime
from experiments.figures.draw.spectrum import draw_spectrum
from experiments.figures.draw.trajectory import draw_trajectory
from experiments.figures.draw.walks import draw_walks
from experiments.figures.draw.weight_histogram import draw_weight_histogram
from experiments.figures.style import RC

DRAWINGS: dict[str, Callable[..., Figure]] = {
    "angles": draw_angles,
    "convolution": draw_convolution,
    "coverage": draw_coverage,
    "curves": draw_curves,
    "error_control": draw_error_control,
    "outputs": draw_outputs,
    "feature_maps": draw_feature_maps,
    "interpolation": draw_interpolation,
    "landscape": draw_landscape,
    "level_curve": draw_level_curve,
    "magnitude": draw_magnitude,
    "quiver": draw_quiver,
    "rows": draw_rows,
    "runtime": draw_runtime,
    "spectrum": draw_spectrum,
    "trajectory": draw_trajectory,
    "walks": draw_walks,
    "weight_histogram": draw_weight_histogram,
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
