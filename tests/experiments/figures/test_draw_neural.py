"""What the pictures of a change of basis say of their tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from experiments.figures import style
from experiments.figures.draw.angles import PAIRS, draw_angles
from experiments.figures.draw.feature_maps import draw_feature_maps
from experiments.figures.draw.landscape import draw_landscape
from experiments.figures.draw.level_curve import draw_level_curve
from experiments.figures.draw.magnitude import draw_magnitude
from experiments.figures.draw.quiver import draw_quiver
from experiments.figures.draw.weight_histogram import draw_weight_histogram
from experiments.figures.measure.landscape import measure_landscape
from experiments.figures.measure.quiver import measure_quiver
from tests.experiments.figures.test_draw import said, tabled

VGG = {"data": "cifar10", "model": "vgg16"}
MLP = {"data": "random", "model": "mlp"}
FAILED = pd.DataFrame({"reason": ["it is not here"]})


def angle_rows(spread):
    generator = np.random.default_rng(0)
    rows = pd.DataFrame({"batch_size": np.tile([8, 64], 50), "number": np.repeat(np.arange(50), 2)})
    for pair in PAIRS:
        rows[pair] = 90 + spread * generator.standard_normal(100)
    return rows.assign(parameters=14_719_818)


def test_angles_have_a_row_a_pair_on_both_scales_and_every_angle_is_counted():
    figure = draw_angles(tabled((VGG, angle_rows(1e-7)), (MLP, angle_rows(0.3))), "title")
    axes = np.array(figure.axes).reshape(8, 2)
    assert [panel.get_ylabel().replace("\n", " ") for panel in axes[::2, 0]] == list(PAIRS.values())
    assert axes[0, 0].get_title() == "VGG16, CIFAR-10\n14.72 M parameters"
    for panel in axes[:, 0]:
        counts = [patch.get_path().vertices[:, 1].max() for patch in panel.patches]
        assert len(counts) == (
            2 if "gradient" in axes[panel.get_subplotspec().rowspan.start // 2 * 2, 0].get_ylabel() else 1
        )
    assert [panel.get_xlim() for panel in axes[::2].flat] == [(-0.25, 0.25)] * 8
    assert all(panel.get_xlim()[1] < 1e-6 for panel in axes[1::2, 0])
    assert all(panel.get_xlim()[1] > 0.5 for panel in axes[1::2, 1])


def test_a_network_without_a_result_says_why_and_the_others_are_drawn():
    figure = draw_angles(tabled((VGG, FAILED), (MLP, angle_rows(0.1))), "title")
    assert "it is not here" in said(figure)
    figure = draw_magnitude(tabled((VGG, magnitude_rows()), (MLP, FAILED)), "title")
    assert "it is not here" in said(figure)
    for drawing in (draw_weight_histogram, draw_level_curve):
        assert "it is not here" in said(drawing(tabled((VGG, FAILED)), "title"))


def test_why_there_is_no_result_is_said_once_in_the_middle_of_the_panel():
    axes = Figure().subplots()
    axes.set_xlim(5, 6)
    style.no_result(axes, pd.DataFrame({"reason": ["", "it is not here", "it is not here", "too large"]}))
    (text,) = axes.texts
    assert text.get_text() == "it is not here\ntoo large"
    middle = axes.transAxes.transform((0.5, 0.5))
    assert text.get_transform().transform(text.get_position()) == pytest.approx(middle)


def magnitude_rows():
    rows = [
        {
            "range": size,
            "number": teleport,
            "source": "theorem",
            "difference": size * teleport,
            "gain": 1 + size,
            "normalised_gain": 1 - size,
        }
        for size in (0.1, 0.9)
        for teleport in (0, 1, 2)
    ]
    rows.append(
        {"range": 0.9, "number": 0, "source": "backpropagation", "difference": 0.4, "gain": 1.9, "normalised_gain": 0.1}
    )
    return pd.DataFrame(rows)


def test_magnitudes_show_every_teleport_their_mean_and_what_is_expected():
    above, below, normalised = draw_magnitude(tabled((VGG, magnitude_rows())), "title").axes
    dots, mean, again = above.lines
    np.testing.assert_allclose(dots.get_ydata(), [0, 0.1, 0.2, 0, 0.9, 1.8])
    np.testing.assert_allclose(mean.get_ydata(), [0.1, 0.9])
    np.testing.assert_allclose(again.get_ydata(), [0.4])
    np.testing.assert_allclose(normalised.lines[1].get_ydata(), [0.9, 0.1])
    expected = below.lines[-1]
    assert expected.get_ydata()[0] == 1.0
    assert expected.get_ydata()[-1] == pytest.approx(np.sqrt(1.27 / 0.19))  # range 0.9


def test_a_histogram_shows_its_counts_and_what_lies_outside():
    before = pd.DataFrame({"low": [-np.inf, -1, 0, 1], "high": [-1, 0, 1, np.inf], "count": [0, 5, 5, 0]})
    after = before.assign(count=[1, 4, 4, 1])
    rows = pd.concat([before.assign(state="before"), after.assign(state="after")])
    left, right = draw_weight_histogram(tabled((VGG, rows)), "title").axes
    np.testing.assert_array_equal(left.patches[0].get_data().values, [5, 5])
    np.testing.assert_array_equal(right.patches[0].get_data().edges, [-1, 0, 1])
    assert "20.00% lie outside" in " ".join(text.get_text() for text in right.texts)


def test_the_level_curves_means_are_those_of_its_points():
    rows = pd.DataFrame({"number": [0, 1], "weight_magnitude": 0.5, "weight_difference": [1.0, 3.0]})
    rows = pd.concat(
        [
            rows.assign(precision=precision, loss_before=2.0, loss_after=[2.0 + error, 2.0 - 3 * error])
            for precision, error in (("float32", 2.0**-20), ("float64", 2.0**-50))
        ]
    )
    points, means = draw_level_curve(tabled((VGG, rows)), "title").axes
    np.testing.assert_allclose(points.lines[0].get_ydata(), [2.0**-20, 3 * 2.0**-20])
    cells = {place: cell.get_text().get_text() for place, cell in means.tables[0].get_celld().items()}
    assert [cells[row, 0] for row in (1, 2, 3)] == ["0.5", "2", "2"]
    assert float(cells[4, 0]) == pytest.approx(2 * 2.0**-20, rel=1e-2)


def test_landscapes_show_their_points_and_how_far_the_losses_are():
    rows = measure_landscape(None, range=0.5, teleports=3, points=7)
    figure = draw_landscape(tabled(({}, rows)), "title")
    for axes, landscape in zip(figure.axes, ("original", "other"), strict=True):
        drawn = axes.lines[-1].get_xydata()
        expected = rows[(rows["what"] == "teleport") & (rows["landscape"] == landscape)]
        np.testing.assert_array_equal(drawn, expected[["first", "second"]])
    assert "7 x 7 points" in said(figure)


def test_a_quiver_shows_every_neuron_weight_and_tau():
    rows = measure_quiver(None, widths=[2, 2, 1], range=0.9)
    graph, network, change, teleported = draw_quiver(tabled(({}, rows)), "title").axes
    for axes in (graph, network, change, teleported):
        assert sum(isinstance(patch, Circle) for patch in axes.patches) == 5
    edges = rows[rows["what"] == "edge"]
    for axes, column in ((network, "weight"), (teleported, "teleported")):
        numbers = [text.get_text() for text in axes.texts if text.get_text() != "f"]
        assert sorted(numbers) == sorted(f"{value:.2f}" for value in edges[column])
    taus = [text.get_text() for text in change.texts]
    assert taus == [f"{tau:.2g}" for tau in rows.loc[rows["what"] == "neuron", "tau"]]


def test_maps_before_and_after_share_a_scale():
    frames = []
    for state, factor in (("before", 1.0), ("after", 1.9)):
        rows = pd.DataFrame(factor * np.arange(8.0).reshape(4, 2), columns=["x0", "x1"])
        frames.append(rows.assign(state=state, layer="relu", channel=[0, 0, 1, 1], row=[0, 1, 0, 1]))
    labels = {"data": "mnist", "model": "resnet18", "model.activation": "tanh"}
    figure = draw_feature_maps(tabled((labels, pd.concat(frames).assign(output_difference=3e-7))), "title")
    images = [axes.images[0] for axes in figure.axes]
    np.testing.assert_allclose([image.get_clim() for image in images], [(0.0, 13.3)] * 4)
    np.testing.assert_allclose(images[1].get_array(), [[4, 5], [6, 7]])
    np.testing.assert_allclose(images[3].get_array(), 1.9 * np.array([[4, 5], [6, 7]]))
    assert "tanh\nstem\nafter" in figure.axes[2].get_ylabel()
    assert "3e-07" in said(figure)
