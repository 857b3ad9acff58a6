"""The measurements: a run of a figure -> rows of its table. What a figure's runs wrote down, or an analysis of them."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from experiments.figures.measure.convolution import measure_convolution
from experiments.figures.measure.curves import measure_curves
from experiments.figures.measure.error_control import measure_error_control
from experiments.figures.measure.spectrum import measure_spectrum
from experiments.figures.measure.trajectory import measure_trajectory
from experiments.figures.measure.walks import measure_walks

MEASURES: dict[str, Callable[..., pd.DataFrame]] = {
    "convolution": measure_convolution,
    "curves": measure_curves,
    "error_control": measure_error_control,
    "spectrum": measure_spectrum,
    "trajectory": measure_trajectory,
    "walks": measure_walks,
}
"""Name -> function of a run that is made and options of its own (keyword arguments).

For a figure without runs the function is called once, with ``None``.
"""
