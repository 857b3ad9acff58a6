"""The page of a picture: what is on it does not overlap, its fonts, its caption and its bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.figures import page, style
from experiments.figures.subjects.curves import draw_curves
from tests.experiments.figures.conftest import ROOT
from tests.experiments.figures.tables import cell, tabled


def pictured(names, seeds=1):
    return tabled(*(cell(name, seed, [2.0, 1.0], moved=1) for name in names for seed in range(seeds)))


def test_a_legend_of_many_names_stays_on_the_page_and_takes_no_room_from_the_panels():
    heights = []
    for names in (list(style.METHODS)[:3], list(style.METHODS)):
        with page.settings():
            figure = draw_curves(pictured(names), "title")
            figure.draw_without_rendering()
        whole = figure.bbox
        names, panel = figure.legends[0].get_window_extent(), figure.axes[0]
        assert whole.x0 < names.x0
        assert names.x1 < whole.x1
        assert panel.get_tightbbox().y1 < names.y0 + 2  # pixels: of a legend's empty border
        heights.append(panel.get_window_extent().height)
    assert heights[1] == pytest.approx(heights[0], rel=0.1)


@pytest.mark.parametrize("paragraphs", [[], ["A claim."], ["word " * 120, "word " * 60]])
def test_title_legend_panels_and_caption_do_not_overlap_and_stay_on_the_page(paragraphs):
    with page.settings():
        figure = draw_curves(pictured(["none", "nullspace"]), "title")
        page.caption(figure, paragraphs)
        figure.freeze()
        renderer = FigureCanvasAgg(figure).get_renderer()
        boxes = [figure.title, figure.legends[0], figure.axes[0], *figure.claim, *figure.notes]
        boxes = [box.get_tightbbox(renderer) for box in boxes]
    assert len(figure.claim) == len(paragraphs)
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in pairwise(boxes))
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1 for box in boxes)
    words = " ".join(text.get_text() for text in figure.claim).split()
    assert words == " ".join(paragraphs).split()


def test_a_caption_takes_no_room_from_the_panels_and_the_last_one_holds():
    heights = []
    for paragraphs in ([], ["word " * 120]):
        with page.settings():
            figure = draw_curves(pictured(["none"]), "title")
            page.caption(figure, ["word " * 300])
            page.caption(figure, paragraphs)
            figure.draw_without_rendering()
        heights.append(figure.axes[0].get_window_extent().height)
    assert heights[1] == pytest.approx(heights[0], abs=1)


def test_edges_of_panels_are_on_whole_pixels():
    with page.settings():
        figure = draw_curves(pictured(["none"]), "title")
        figure.freeze()
    for axes in figure.axes:
        edges = axes.get_window_extent().extents
        assert edges == pytest.approx([round(edge) for edge in edges], abs=1e-6)


@pytest.mark.slow
def test_settings_and_fonts_of_the_user_do_not_count(tmp_path):
    """Neither a matplotlibrc nor a cache of fonts that lists others, nor the order of sets."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "matplotlibrc").write_text("font.size: 30\nlines.marker: o\naxes.facecolor: yellow\n")
    font = font_manager.findfont("DejaVu Serif")
    entry = {"fname": font, "index": 0, "name": "DejaVu Sans", "style": "normal", "variant": "normal"}
    entry |= {"weight": 400, "stretch": "normal", "size": "scalable", "__class__": "FontEntry"}
    cache = {"_version": font_manager.FontManager.__version__, "_FontManager__default_weight": "normal"}
    cache |= {"default_size": None, "defaultFamily": {"ttf": "DejaVu Sans", "afm": "Helvetica"}, "afmlist": []}
    cache |= {"ttflist": [entry], "__class__": "FontManager"}
    (tmp_path / "other" / f"fontlist-v{cache['_version']}.json").write_text(json.dumps(cache))
    code = (
        "import sys; from pathlib import Path; from experiments.figures import page\n"
        "from tests.experiments.figures.test_page import *\n"
        "with page.settings(): figure = draw_curves(pictured(['none', 'nullspace'], seeds=2), 'title $x^2$')\n"
        "page.save(figure, Path(sys.argv[1]), 'it')"
    )
    for number, folder in enumerate(("plain", "other")):
        (tmp_path / folder).mkdir(exist_ok=True)
        env = os.environ | {"MPLCONFIGDIR": str(tmp_path / folder), "PYTHONHASHSEED": str(number)}
        subprocess.run([sys.executable, "-c", code, tmp_path / folder], cwd=ROOT, env=env, check=True, timeout=120)
    for name in ("it.pdf", "it.png"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_fonts_are_those_of_matplotlib():
    with page.settings():
        for family in ("DejaVu Sans", "STIXGeneral", "cmr10"):
            found = Path(font_manager.findfont(family, fallback_to_default=False))
            assert found.resolve().is_relative_to(Path(matplotlib.get_data_path()).resolve())


def test_why_there_is_no_result_is_said_once_in_the_middle_of_the_panel():
    axes = Figure().subplots()
    axes.set_xlim(5, 6)
    page.no_result(axes, pd.DataFrame({"reason": ["", "it is not here", "it is not here", "too large"]}))
    (text,) = axes.texts
    assert text.get_text() == "it is not here\ntoo large"
    middle = axes.transAxes.transform((0.5, 0.5))
    assert text.get_transform().transform(text.get_position()) == pytest.approx(middle)
