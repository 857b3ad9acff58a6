"""Panels of losses and accuracies: methods, seeds, no-ops, divergence, swept settings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.colors import to_hex

from experiments.errors import UserError
from experiments.figures import style
from experiments.figures.compare import compare
from experiments.figures.panels import QUANTITIES, average
from experiments.figures.subjects.curves import draw_curves
from tests.experiments.figures.tables import cell, said, tabled


def test_teleports_that_moved_nothing_are_said_below_and_stay_in_the_picture():
    figure = draw_curves(tabled(cell("none", 0, [2.0, 1.0]), cell("nullspace", 0, [2.0, 1.0], moved=0)), "title")
    assert "null space, lands on the cap moved nothing;" in said(figure)
    assert not figure.axes[0].texts  # which would cover curves
    colors = [to_hex(line.get_color()).upper() for line in figure.axes[0].lines if len(line.get_xdata()) > 1]
    assert colors == [style.METHODS["nullspace"].color, style.METHODS["none"].color]


def test_a_no_op_in_some_runs_says_in_how_many():
    cells = [cell("nullspace", seed, [2.0, 1.0], moved=seed) for seed in (0, 1, 2)]
    assert "moved nothing in 1 of 3 runs" in said(draw_curves(tabled(*cells), "title"))


def test_teleports_that_moved_are_marked():
    figure = draw_curves(tabled(cell("nullspace", 0, [2.0, 1.0], moved=1)), "title")
    assert "cap moved nothing" not in said(figure)
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
    for values in (curve.mean, curve.low, curve.high):
        np.testing.assert_array_equal(values, [2.0, math.nan, math.nan])
    figure = draw_curves(rows, "title")
    assert "diverged in 1 of 2 runs" in said(figure)
    assert not figure.axes[0].texts
    (cross,) = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (0.0, pytest.approx(2.0))


def test_a_shade_is_from_the_smallest_to_the_largest_seed_and_stays_in_the_panel():
    ends = (0.001, 1.0, 3.0)
    axes = draw_curves(tabled(*(cell("none", seed, [2.0, end]) for seed, end in enumerate(ends))), "title").axes[0]
    (shade,) = axes.collections
    heights = shade.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0.001, 3.0)
    low, high = axes.get_ylim()
    assert low < 0.001
    assert high > 3.0
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [2.0, pytest.approx(sum(ends) / 3)])


def test_a_first_loss_that_would_flatten_the_others_is_above_the_panel_and_said():
    figure = draw_curves(tabled(cell("nullspace", 0, [27.0, 2.2, 2.0], moved=1)), "title")
    low, high = figure.axes[0].get_ylim()
    assert 1.5 < low < 2.0
    assert 2.2 < high < 2.5
    assert "the loss before the first step is above the panel" in said(figure)
    (mark,) = [line for line in figure.axes[0].lines if line.get_marker() == "v"]
    assert mark.get_ydata()[0] == pytest.approx(high)
    assert "above the panel" not in said(draw_curves(tabled(cell("none", 0, [2.3, 0.5, 0.1])), "title"))


@pytest.mark.parametrize(("losses", "scale"), [([2.3, 2.0, 1.8], "linear"), ([2.3, 0.3, 0.02], "log")])
def test_an_axis_is_logarithmic_where_losses_span_much(losses, scale):
    figure = draw_curves(tabled(cell("none", 0, losses)), "title")
    assert [axes.get_yscale() for axes in figure.axes] == [scale] * 2


def test_remarks_name_the_panels_that_they_are_about():
    cells = [cell("nullspace", 0, [2.0, 1.0], moved=0, task=("mnist", "mlp", name)) for name in ("sgd", "adam")]
    cells += [cell("nullspace", 0, [2.0, 1.0], moved=1, task=("digits", "mlp", name)) for name in ("sgd", "adam")]
    assert "moved nothing (MNIST);" in said(draw_curves(tabled(*cells), "title"))
    cells.append(cell("nullspace", 0, [2.0, 1.0], moved=1, task=("mnist", "mlp", "adagrad")))
    assert "moved nothing (MNIST SGD, MNIST Adam);" in said(draw_curves(tabled(*cells), "title"))
    assert "moved nothing;" in said(draw_curves(tabled(*cells[:2]), "title"))


def test_every_row_of_seconds_names_its_axis():
    tasks = (("mnist", "mlp", "sgd"), ("digits", "mlp", "sgd"))
    rows = tabled(*(cell("none", 0, [2.0, 1.0], task=task) for task in tasks))
    assert all(axes.get_xlabel().startswith("seconds") for axes in draw_curves(rows, "title", x="seconds").axes)


def test_one_seed_has_no_spread():
    rows = tabled(cell("none", 0, [2.0, 1.0]))
    assert not draw_curves(rows, "title").axes[0].collections
    assert "one seed" in said(draw_curves(rows, "title"))


def test_a_curve_that_blows_up_leaves_the_panel_and_does_not_flatten_the_others():
    rows = tabled(cell("none", 0, [2.0, 1.0]), cell("nullspace_paper", 0, [2.0, 1e9], moved=1))
    figure = draw_curves(rows, "title")
    low, high = figure.axes[0].get_ylim()
    assert low < 1.0
    assert 2.0 < high < 10.0
    assert "null space, the paper's rule goes above the panel;" in said(figure)
    assert "no teleport goes" not in said(figure)


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


def swept(teleport, losses, moved=None, **keys):
    """One run whose keys ``group__name`` are swept, with an accuracy that is a tenth of the loss."""
    labels, rows = cell(teleport, 0, losses, moved)
    accuracy = (rows["train_loss"] / 10).where(rows["event"] == "evaluation")
    return labels | {key.replace("__", "."): value for key, value in keys.items()}, rows.assign(test_metric=accuracy)


def curves(axes):
    """Colour -> heights of the lines of a panel, without marks."""
    lines = [line for line in axes.lines if len(line.get_xdata()) > 1]
    return {to_hex(line.get_color()).upper(): list(line.get_ydata()) for line in lines}


BLUE, GRAY = style.METHODS["change_of_basis_inter"].color, style.METHODS["none"].color


def test_each_value_of_a_key_has_a_row_of_its_own():
    rows = [("none", 0.5, "leaky_relu"), ("change_of_basis_inter", 0.25, "leaky_relu"), ("none", 0.125, "tanh")]
    table = tabled(*(swept(method, [2.0, end], model__activation=name) for method, end, name in rows))
    (leaky, _), (tanh, _) = np.reshape(draw_curves(table, "title", rows=["model.activation"]).axes, (2, 2))
    assert leaky.get_ylabel().endswith("LeakyReLU")
    assert tanh.get_ylabel().endswith("Tanh")
    assert curves(leaky) == {BLUE: [2.0, 0.25], GRAY: [2.0, 0.5]}
    assert curves(tanh) == {GRAY: [2.0, 0.125]}


def test_each_value_of_a_key_is_a_line_of_its_own_and_what_has_no_such_key_is_one():
    teleported = [swept("change_of_basis_inter", [2.0, size], moved=1, teleport__range=size) for size in (0.5, 0.99)]
    figure = draw_curves(tabled(swept("none", [2.0, 1.0]), *teleported), "title", lines=["teleport.range"])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:3] == ["no teleport", "change of basis, range 0.5", "change of basis, range 0.99"]
    heights = curves(figure.axes[0])
    assert heights[GRAY] == [2.0, 1.0]
    assert sorted(heights.values()) == [[2.0, 0.5], [2.0, 0.99], [2.0, 1.0]]


def test_an_accuracy_has_a_linear_axis_of_its_own_and_losses_share_theirs():
    table = tabled(swept("change_of_basis_inter", [8.0, 2.0], moved=1))
    table.loc[table["event"] == "teleport", "epoch"] = 0.5
    table.loc[table["event"] == "evaluation", "test_metric"] = [0.8, 0.2]
    train, test, accuracy = draw_curves(table, "title", quantities=["train", "test", "accuracy"]).axes
    assert accuracy.get_title() == "test accuracy, SGD"
    assert [axes.get_yscale() for axes in (train, test, accuracy)] == ["log", "log", "linear"]
    assert curves(accuracy) == {BLUE: [0.8, 0.2]}
    assert train.get_ylim() == test.get_ylim()
    assert accuracy.get_ylim()[1] < 1
    marks = [next(line.get_ydata()[0] for line in axes.lines if line.get_marker() == "v") for axes in (train, accuracy)]
    assert marks == pytest.approx([4.0, 0.5])  # halfway on a straight line: the geometric and the arithmetic mean


def test_accuracies_of_several_optimizers_share_their_axis():
    cells = [swept("none", [end, 2.0]) for end in (4.0, 8.0)]
    cells[1][0]["optimizer"] = "adam"
    panels = draw_curves(tabled(*cells), "title", quantities=["train", "accuracy"]).axes
    losses, accuracies = np.reshape(panels, (2, 2))
    assert accuracies[0].get_ylim() == accuracies[1].get_ylim()
    assert accuracies[0].get_ylim()[0] < 0.2
    assert 0.8 < accuracies[0].get_ylim()[1] < losses[0].get_ylim()[0]


def test_an_accuracy_ends_where_the_training_diverged():
    labels, rows = swept("none", [2.0, 1.0, math.nan])
    rows["test_metric"] = [0.1, 0.2, 0.3]
    (axes,) = draw_curves(tabled((labels, rows)), "title", quantities=["accuracy"]).axes
    np.testing.assert_array_equal(curves(axes)[GRAY], [0.1, 0.2])
    assert "diverged in 1 of 1 runs" in said(axes.figure)


def test_keys_that_cannot_be_shown_are_refused():
    first, second = (swept("none", [2.0, 1.0], optimizer__lr=rate) for rate in (0.1, 0.01))
    with pytest.raises(UserError, match="name the key in which they differ among its 'rows' or 'lines'"):
        draw_curves(tabled(first, second), "title")
    assert len(draw_curves(tabled(first, second), "title", rows=["optimizer.lr"]).axes) == 4
    with pytest.raises(UserError, match=r"'optimizer.l'.*did you mean 'optimizer.lr'"):
        draw_curves(tabled(first, second), "title", rows=["optimizer.l"])
    with pytest.raises(UserError, match=r"'test_loss'.*known: data, model"):
        draw_curves(tabled(first), "title", lines=["test_loss"])
    with pytest.raises(UserError, match=r"'optimizer.lr' is among the 'rows'.*some of the figure's runs lack it"):
        draw_curves(tabled(first, swept("nullspace", [2.0, 1.0])), "title", rows=["optimizer.lr"])


def test_a_key_that_only_later_runs_have_tells_runs_apart_as_well():
    teleported = [swept("change_of_basis_inter", [2.0, size], teleport__range=size) for size in (0.5, 0.99)]
    table = tabled(swept("none", [2.0, 1.0]), *teleported)
    assert list(table.columns[:6]) == ["data", "model", "optimizer", "teleport", "seed", "teleport.range"]
    ends = compare(table).set_index("teleport.range")["train_end"]
    assert ends.loc[[0.5, 0.99]].tolist() == [0.5, 0.99]


def test_the_runs_of_a_seed_may_be_averaged_over_a_swept_key_before_the_seeds_are():
    cells = [cell("none", seed, [4.0, end + seed]) for seed in (0, 1) for end in (1.0, 3.0)]
    for number, (labels, _) in enumerate(cells):
        labels["optimizer.lr"] = (0.1, 0.01)[number % 2]
    figure = draw_curves(tabled(*cells), "title", average=["optimizer.lr"])
    (line,) = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 1]
    np.testing.assert_array_equal(line.get_ydata(), [4.0, 2.5])  # the mean of 1, 2, 3 and 4
    (shade,) = figure.axes[0].collections
    assert shade.get_paths()[0].get_extents().intervaly.tolist() == [2.0, 4.0]  # the means 2 and 3, and the start
    assert "smallest to largest of 2 seeds, each the mean over its rates" in said(figure)
    with pytest.raises(UserError, match="several runs with the same values"):
        draw_curves(tabled(*cells), "title")


def test_a_task_of_which_nothing_was_tuned_has_no_panels_and_is_said():
    """If nothing of the figure was tuned, all of it is shown."""
    reason = (
        "data=mnist model=mlp optimizer=sgd teleport=none is not tuned; tune it by python scripts/tune.py mnist mlp sgd"
    )
    measured = cell("none", 0, [2.0, 1.0])
    untuned = cell("none", 0, [math.nan], task=("mnist", "mlp", "sgd"), reason=reason, event="")
    figure = draw_curves(tabled(measured, untuned), "title")
    assert len(figure.axes) == 2
    assert "left out, as they are not tuned yet (MNIST)" in said(figure)
    assert len(draw_curves(tabled(untuned), "title").axes) == 2


def test_losses_of_the_first_epoch_that_would_flatten_the_others_are_above_the_panel_and_said():
    """Several evaluations an epoch: the drop is not before the first step alone."""
    labels, rows = cell("none", 0, [35.0, 10.0, 5.0, 2.6, 2.5, 2.4, 2.3, 2.2])
    rows["epoch"] = rows["step"] / 30
    figure = draw_curves(tabled((labels, rows)), "title")
    low, high = figure.axes[0].get_ylim()
    assert 2.0 < low < 2.2
    assert 2.6 < high < 3.0
    assert "losses of the first epoch are above the panel" in said(figure)


@pytest.mark.parametrize(("end", "told"), [(1.001, True), (1.5, False)])
def test_a_line_that_lies_under_another_is_said(end, told):
    pair = [cell("none", 0, [2.0, 1.5, 1.0]), cell("nullspace", 0, [2.0, 1.5, end], moved=1)]
    figure = draw_curves(tabled(*pair), "title")
    assert ("null space, lands on the cap hidden under no teleport;" in said(figure)) is told
    unmoved = [pair[0], cell("nullspace", 0, [2.0, 1.5, end], moved=0)]
    assert "hidden" not in said(draw_curves(tabled(*unmoved), "title"))  # that it moved nothing says so


def test_a_line_that_ends_as_a_seed_diverged_is_not_hidden_by_those_that_go_on():
    plain = [cell("none", seed, [2.0, 1.5, 1.0]) for seed in (0, 1)]
    ending = [cell("nullspace", seed, losses, moved=1) for seed, losses in ((0, [2.0, 1.5, 1.0]), (1, [2.0, math.nan]))]
    words = said(draw_curves(tabled(*plain, *ending), "title"))
    assert "diverged in 1 of 2 runs" in words
    assert "hidden" not in words
