"""The look of methods, names of settings, legends and messages."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure

from experiments.figures import style
from experiments.figures.subjects.curves import draw_curves
from tests.experiments.figures.tables import cell, tabled


def test_a_legend_of_many_names_stays_on_the_page_and_takes_no_room_from_the_panels():
    heights = []
    for names in (list(style.METHODS)[:3], list(style.METHODS)):
        rows = tabled(*(cell(name, 0, [2.0, 1.0]) for name in names))
        with rc_context(style.RC):
            figure = draw_curves(rows, "title")
            figure.draw_without_rendering()
        whole = figure.bbox
        names, panel = figure.legends[0].get_window_extent(), figure.axes[0]
        assert whole.x0 < names.x0
        assert names.x1 < whole.x1
        assert panel.get_tightbbox().y1 < names.y0 + 2  # pixels: of a legend's empty border
        heights.append(panel.get_window_extent().height)
    assert heights[1] == pytest.approx(heights[0], rel=0.1)
    apart = ("auto", "gentle", "random_gentle")  # in a figure of their own
    apart += ("orbit", "change_of_basis_inter", "pseudo_teleport")  # in other figures: points, and another paper's
    together = [look for name, look in style.METHODS.items() if name not in apart]
    assert len({(look.color, look.line) for look in together}) == len(together)


def test_each_method_looks_like_itself_whatever_else_is_there():
    looks = style.looks(["one_of_mine", "none", "nullspace", "another"])
    assert looks["none"] == style.METHODS["none"]
    assert len({look.color for look in looks.values()}) == 4


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("optimizer.lr", 0.001, "rate 0.001"),
        ("teleport.range", 0.9, "range 0.9"),
        ("training.batch_size", 256, "batch size 256"),
        ("model.init", "xavier", "Xavier"),
        ("model.activation", "elu", "ELU"),
    ],
)
def test_settings_are_named_as_one_says_them(key, value, name):
    assert style.setting(key, value) == name


def test_why_there_is_no_result_is_said_once_in_the_middle_of_the_panel():
    axes = Figure().subplots()
    axes.set_xlim(5, 6)
    style.no_result(axes, pd.DataFrame({"reason": ["", "it is not here", "it is not here", "too large"]}))
    (text,) = axes.texts
    assert text.get_text() == "it is not here\ntoo large"
    middle = axes.transAxes.transform((0.5, 0.5))
    assert text.get_transform().transform(text.get_position()) == pytest.approx(middle)
