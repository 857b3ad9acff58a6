"""A run without a result shows its reason in the picture."""

from __future__ import annotations

from experiments.figures.subjects.angles import draw_angles
from experiments.figures.subjects.level_curve import draw_level_curve
from experiments.figures.subjects.magnitude import draw_magnitude
from experiments.figures.subjects.weight_histogram import draw_weight_histogram
from tests.experiments.figures.tables import FAILED, MLP, VGG, angle_rows, magnitude_rows, said, tabled


def test_a_network_without_a_result_says_why_and_the_others_are_drawn():
    figure = draw_angles(tabled((VGG, FAILED), (MLP, angle_rows(0.1))), "title")
    assert "it is not here" in said(figure)
    figure = draw_magnitude(tabled((VGG, magnitude_rows()), (MLP, FAILED)), "title")
    assert "it is not here" in said(figure)
    for drawing in (draw_weight_histogram, draw_level_curve):
        assert "it is not here" in said(drawing(tabled((VGG, FAILED)), "title"))
