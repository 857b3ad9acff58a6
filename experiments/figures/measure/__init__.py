"""The measurements: a run of a figure -> rows of its table. What a figure's runs wrote down, or an analysis of them."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from experiments.figures.measure.angles import measure_angles
from experiments.figures.measure.convolution import measure_convolution
from experiments.figures.measure.coverage import measure_coverage
from experiments.figures.measure.curves import measure_curves
from experiments.figures.measure.error_control import measure_error_control
from experiments.figures.measure.feature_maps import measure_feature_maps
from experiments.figures.measure.interpolation import measure_interpolation
from experiments.figures.measure.landscape import measure_landscape
from experiments.figures.measure.level_curve import measure_level_curve
from experiments.figures.measure.magnitude import measure_magnitude
from experiments.figures.measure.outputs import measure_outputs
from experiments.figures.measure.quiver import measure_quiver
from experiments.figures.measure.runtime import measure_runtime
from experiments.figures.measure.spectrum import measure_spectrum
from experiments.figures.measure.trajectory import measure_trajectory
from experiments.figures.measure.walks import measure_walks
from experiments.figures.measure.weight_histogram import measure_weight_histogram

MEASURES: dict[str, Callable[..., pd.DataFrame]] = {
    "angles": measure_angles,
    "convolution": measure_convolution,
    "coverage": measure_coverage,
    "curves": measure_curves,
    "error_control": measure_error_control,
    "outputs": measure_outputs,
    "feature_maps": measure_feature_maps,
    "interpolation": measure_interpolation,
    "landscape": measure_landscape,
    "level_curve": measure_level_curve,
    "magnitude": measure_magnitude,
    "quiver": measure_quiver,
    "runtime": measure_runtime,
    "spectrum": measure_spectrum,
    "trajectory": measure_trajectory,
    "walks": measure_walks,
    "weight_histogram": measure_weight_histogram,
}
"""Name -> function of a run that is made and options of its own (keyword arguments).

For a figure without runs the function is called once, with ``None``.
"""
