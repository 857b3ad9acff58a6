"""Curves in rows and lines by what a figure sweeps, and accuracies beside losses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.colors import to_hex

from experiments.errors import UserError
from experiments.figures import style
from experiments.figures.compare import compare
from experiments.figures.draw.curves import draw_curves
from tests.experiments.figures.test_draw import cell, tabled


def swept(teleport, losses, moved=None, **keys):
    """One run whose keys ``group__name`` are swept, with an accuracy that is a tenth of the loss."""
    labels, rows = cell(teleport, 0, losses, moved)
    accuracy = (rows["train_loss"] / 10).where(rows["event"] == "evaluation")
    return labels | {key.replace("__", "."): value for key, value in keys.items()}, rows.assign(test_metric=accuracy)


def curves(axes):
    """Colour -> heights of the lines of a panel, without marks."""
    lines = [line for line in axes.lines if len(line.get_xdata()) > 1]
    return {to_hex(line.get_color()).upper(): list(line.get_ydata()) for line in lines}


BLUE, GRAY = style.METHODS["change_of_basis_inter"].color, style.GRAY


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
    assert "diverged in 1 of 1 runs" in axes.texts[0].get_text()


def test_keys_that_cannot_be_shown_are_refused():
    first, second = (swept("none", [2.0, 1.0], optimizer__lr=rate) for rate in (0.1, 0.01))
    with pytest.raises(UserError, match="name the key that they differ in among its 'rows' or 'lines'"):
        draw_curves(tabled(first, second), "title")
    assert len(draw_curves(tabled(first, second), "title", rows=["optimizer.lr"]).axes) == 4
    with pytest.raises(UserError, match=r"'optimizer.l'.*did you mean 'optimizer.lr'"):
        draw_curves(tabled(first, second), "title", rows=["optimizer.l"])
    with pytest.raises(UserError, match=r"'test_loss'.*known: data, model"):
        draw_curves(tabled(first), "title", lines=["test_loss"])
    with pytest.raises(UserError, match=r"'optimizer.lr' makes rows.*some of the figure's runs have none"):
        draw_curves(tabled(first, swept("nullspace", [2.0, 1.0])), "title", rows=["optimizer.lr"])


def test_a_key_that_only_later_runs_have_tells_runs_apart_as_well():
    teleported = [swept("change_of_basis_inter", [2.0, size], teleport__range=size) for size in (0.5, 0.99)]
    table = tabled(swept("none", [2.0, 1.0]), *teleported)
    assert list(table.columns[:6]) == ["data", "model", "optimizer", "teleport", "seed", "teleport.range"]
    ends = compare(table).set_index("teleport.range")["train_end"]
    assert ends.loc[[0.5, 0.99]].tolist() == [0.5, 0.99]


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
