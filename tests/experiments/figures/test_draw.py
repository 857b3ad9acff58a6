"""What the pictures say of the tables they are drawn from."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context
from matplotlib.colors import to_hex

from experiments.errors import UserError
from experiments.figures import style
from experiments.figures.draw.convolution import draw_convolution
from experiments.figures.draw.curves import draw_curves
from experiments.figures.draw.error_control import draw_error_control, threshold_name
from experiments.figures.draw.panels import QUANTITIES, average
from experiments.figures.draw.rows import draw_rows
from experiments.figures.draw.runtime import draw_runtime
from experiments.figures.draw.spectrum import draw_spectrum
from experiments.figures.measure.convolution import measure_convolution
from experiments.figures.table import gather, parse, to_csv


def cell(teleport, seed, losses, moved=None, task=("digits", "mlp", "sgd"), **where):
    rows = pd.DataFrame({"event": "evaluation", "step": range(0, 10 * len(losses), 10), "train_loss": losses})
    rows["moved_layers"] = math.nan
    if moved is not None:
        event = pd.DataFrame({"event": ["teleport"], "step": [0], "train_loss": losses[:1], "moved_layers": [moved]})
        rows = pd.concat([rows, event], ignore_index=True)
    rows["epoch"], rows["seconds"], rows["test_loss"] = rows["step"] / 10, rows["step"] * 0.1, rows["train_loss"]
    labels = dict(zip(("data", "model", "optimizer"), task, strict=True)) | {"teleport": teleport, "seed": seed}
    return labels, rows.assign(run=f"{teleport}{seed}", **where)


def tabled(*cells):
    return parse(to_csv(gather(cells, "smoke", 1)), "it")


def said(figure):
    texts = [text for axes in figure.axes for text in axes.texts] + figure.texts
    return " ".join(" ".join(text.get_text().split()) for text in texts)


def test_teleports_that_moved_nothing_are_called_a_no_op_and_stay_in_the_picture():
    figure = draw_curves(tabled(cell("none", 0, [2.0, 1.0]), cell("nullspace", 0, [2.0, 1.0], moved=0)), "title")
    assert "null space, lands on the cap: no-op" in said(figure)
    colors = [to_hex(line.get_color()).upper() for line in figure.axes[0].lines if len(line.get_xdata()) > 1]
    assert colors == [style.METHODS["nullspace"].color, style.METHODS["none"].color]


def test_a_no_op_in_some_runs_says_in_how_many():
    cells = [cell("nullspace", seed, [2.0, 1.0], moved=seed) for seed in (0, 1, 2)]
    assert "no-op in 1 of 3 runs" in said(draw_curves(tabled(*cells), "title"))


def test_teleports_that_moved_are_marked_and_not_called_a_no_op():
    figure = draw_curves(tabled(cell("nullspace", 0, [2.0, 1.0], moved=1)), "title")
    assert "no-op" not in said(figure)
    (mark,) = [line for line in figure.axes[0].lines if line.get_marker() == "v"]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (0.0, pytest.approx(2.0))


@pytest.mark.parametrize("blown_up", [math.inf, math.nan])
def test_a_mean_ends_where_a_seed_diverged_and_says_so(blown_up):
    # The diverged run has a last row at a step of its own.
    cells = [cell("nullspace", 0, [2.0, 1.0, 0.5], moved=1), cell("nullspace", 1, [2.0, blown_up], moved=1)]
    cells[1][1].loc[1, "step"] = 7
    rows = tabled(*cells)
    curve = average(rows[rows["event"] == "evaluation"], "epoch", QUANTITIES["train"])
    np.testing.assert_array_equal(curve.x, [0, 1, 2])
    np.testing.assert_array_equal(curve.mean, [2.0, math.nan, math.nan])
    assert "diverged in 1 of 2 runs" in said(draw_curves(rows, "title"))


def test_one_seed_has_no_spread():
    rows = tabled(cell("none", 0, [2.0, 1.0]))
    assert not draw_curves(rows, "title").axes[0].collections
    assert "one seed" in said(draw_curves(rows, "title"))


def test_a_curve_that_blows_up_leaves_the_panel_and_does_not_flatten_the_others():
    rows = tabled(cell("none", 0, [2.0, 1.0]), cell("nullspace_paper", 0, [2.0, 1e9], moved=1))
    low, high = draw_curves(rows, "title").axes[0].get_ylim()
    assert low < 1.0
    assert 2.0 < high < 10.0


def test_a_fragment_of_a_data_set_and_the_hardware_are_said():
    rows = tabled(cell("none", 0, [2.0, 1.0], note="10 of 200 classes", hardware="a chip"))
    assert "Digits: 10 of 200 classes" in said(draw_curves(rows, "title"))
    assert "a chip" in said(draw_curves(rows, "title"))


def test_losses_are_drawn_across_hardware_only_where_it_is_said_and_seconds_never():
    rows = tabled(cell("none", 0, [2.0, 1.0], hardware="a chip"), cell("none", 1, [2.0, 1.0], hardware="a disc"))
    assert "a chip; a disc" in said(draw_curves(rows, "title"))
    with pytest.raises(UserError, match="seconds are not compared"):
        draw_curves(rows, "title", x="seconds")


def test_runs_that_differ_in_what_no_panel_shows_are_refused():
    first, second = cell("nullspace", 0, [2.0, 1.0], moved=1), cell("nullspace", 0, [2.0, 0.5], moved=1)
    with pytest.raises(UserError, match="several runs"):
        draw_curves(tabled(first, second), "title")


def test_unknown_options_are_refused():
    with pytest.raises(UserError, match=r"'epochs'.*did you mean 'epoch'"):
        draw_curves(tabled(cell("none", 0, [1.0])), "title", x="epochs")
    with pytest.raises(UserError, match=r"'tset'.*did you mean 'test'"):
        draw_curves(tabled(cell("none", 0, [1.0])), "title", quantities=["tset"])


MNIST = {"data": "mnist", "x": "epoch", "loss": "train"}
DIGITS = {"data": "digits", "x": "seconds", "loss": "test"}


def test_rows_have_their_own_data_axis_loss_and_models():
    tasks = [("mnist", "mlp_small", "sgd"), ("mnist", "mlp", "adam"), ("digits", "mlp", "adam")]
    rows = tabled(*(cell("none", 0, [2.0 + number, 1.0], task=task) for number, task in enumerate(tasks)))
    rows["test_loss"] += 10
    (small, large), (empty, digits) = np.reshape(draw_rows(rows, "title", rows=[MNIST, DIGITS]).axes, (2, 2))
    assert small.get_title() == "SGD, small MLP"
    assert large.get_title() == "Adam, MLP"
    np.testing.assert_array_equal(large.lines[0].get_data(), [[0, 1], [3.0, 1.0]])
    np.testing.assert_array_equal(digits.lines[0].get_data(), [[0, 1.0], [14.0, 11.0]])
    assert not empty.lines
    assert not empty.axison


def test_rows_refuse_what_they_cannot_show():
    rows = tabled(cell("none", 0, [1.0]), cell("none", 0, [1.0], task=("digits", "mlp_small", "sgd")))
    with pytest.raises(UserError, match="has the keys data, x, loss, not data, x"):
        draw_rows(rows, "title", rows=[{"data": "digits", "x": "epoch"}])
    with pytest.raises(UserError, match="did you mean 'digits'"):
        draw_rows(rows, "title", rows=[DIGITS | {"data": "digit"}])
    with pytest.raises(UserError, match="digits with sgd has mlp and mlp_small"):
        draw_rows(rows, "title", rows=[DIGITS])


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
    apart = ("orbit", "change_of_basis_inter", "pseudo_teleport")  # in other figures: points, and another paper's
    together = [look for name, look in style.METHODS.items() if name not in apart]
    assert len({(look.color, look.line) for look in together}) == len(together)


def test_a_runtime_without_steps_is_hollow_and_what_has_no_exponent_says_so():
    values = pd.DataFrame({"axis": "samples", "value": [100, 1000], "steps_taken": [64, 0], "exponent": 0.25})
    values = values.assign(seconds=[1.0, 2.0], fastest=[0.9, 1.5], slowest=[1.5, 2.5], null_dimensions=3)
    base = {"width": 8, "samples": 100, "layers": 2, "batches": 4, "steps": 5}
    cells = [({}, values.assign(method="nullspace", hardware="a chip", **base).assign(exponent=math.nan))]
    cells.append(({}, values.assign(method="symmetry 2024", hardware="a chip", **base, steps_taken=64)))
    (panel,) = (figure := draw_runtime(tabled(*cells), "title")).axes
    assert [text.get_text() for text in panel.texts] == ["n$^{?}$", "n$^{0.25}$"]
    assert "d = 8, n = 100, l = 2, b = 4, k = 5" in said(figure)
    faces = [line.get_markerfacecolor() for line in panel.lines if line.get_marker() == "o"]
    assert faces.count("white") == 1


def test_each_method_looks_like_itself_whatever_else_is_there():
    looks = style.looks(["one_of_mine", "none", "nullspace", "another"])
    assert looks["none"] == style.METHODS["none"]
    assert len({look.color for look in looks.values()}) == 4


def test_the_convolution_shows_every_number_of_its_table():
    rows = measure_convolution(None, channels=3, size=5, filters=2, kernel=3)
    figure = draw_convolution(rows, "title")
    numbers = [text.get_text().replace("\N{MINUS SIGN}", "-") for text in figure.axes[0].texts]
    assert sorted(int(n) for n in numbers if n.lstrip("-").isdigit()) == sorted(rows["value"])


def test_spectra_show_their_data_sets_and_why_one_is_missing():
    spectrum = pd.DataFrame({"share": [0.5, 1.0], "energy": [0.9, 1.0], "rest": [0.1, 0.0]})
    measured = spectrum.assign(state="trained", layer="linear2.weight", dimension=2, positions=9)
    cells = [
        ({"data": "mnist", "model": "mlp"}, measured),
        ({"data": "traffic", "model": "transformer"}, pd.DataFrame({"reason": ["it is not here"]})),
    ]
    figure = draw_spectrum(tabled(*cells), "title")
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [0.9, 1.0])
    assert "Traffic: it is not here" in said(figure)
    names = " ".join(text.get_text() for text in figure.axes[2].get_legend().get_texts())
    assert "MNIST, MLP\n  linear2, d = 2" in names


def test_error_control_shows_each_threshold():
    trace = pd.DataFrame({"step": [0, 1], "loss": [2.0, 2.002], "gradient_norm": [1.0, 1.5]})
    cells = [({"data": "smnist"}, trace.assign(threshold=threshold)) for threshold in (1.0, 0.95)]
    loss, change, norm = draw_error_control(tabled(*cells), "title").axes
    for line in loss.lines:
        np.testing.assert_array_equal(line.get_ydata(), [2.0, 2.002])
    assert change.lines[0].get_ydata()[1] == pytest.approx(0.001)
    np.testing.assert_array_equal(norm.lines[1].get_ydata(), [1.0, 1.5])


@pytest.mark.parametrize(
    ("threshold", "name"),
    [(1.0, "1 (numerical rank)"), (0.9999999, "1 - 1e-7"), (0.9999, "0.9999"), (0.95, "0.95")],
)
def test_thresholds_are_named_by_what_tells_them_apart(threshold, name):
    assert threshold_name(threshold) == name
