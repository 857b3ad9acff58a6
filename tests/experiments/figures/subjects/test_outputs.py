"""Outputs of networks in several styles of code are preserved in both precisions."""

from __future__ import annotations

import math

import pytest

from experiments.figures.style import MODELS
from experiments.figures.subjects import outputs
from experiments.figures.subjects.outputs import NAMES, PAPER, draw_outputs, measure_outputs, trials
from tests.experiments.figures.tables import tabled


@pytest.mark.slow
def test_outputs_of_every_style_are_kept_in_both_precisions(monkeypatch):
    few = {name: trial for name, trial in trials().items() if name not in PAPER}
    monkeypatch.setattr(outputs, "trials", lambda: few)
    table = measure_outputs(None, teleports=1)
    assert len(table) == len(few) * 2 * 2 * 2
    assert (table["free"] > 0).all()
    assert (table["moved"] > 0.01).all()
    assert (table["difference"] < table["precision"].map({"float32": 1e-5, "float64": 1e-13})).all()
    figure = draw_outputs(tabled(({}, table)), "title")
    drawn = [math.log10(value) for axes in figure.axes for line in axes.lines for value in line.get_xdata()]
    assert len(drawn) == len(table) + 2 * 2  # and the two ends of each dotted line


def test_every_network_has_a_name_to_be_drawn_with():
    assert set(trials()) <= set(NAMES) | set(MODELS)
