"""Rows with a data set, an axis and a loss of their own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.errors import UserError
from experiments.figures.subjects.rows import draw_rows
from tests.experiments.figures.tables import cell, said, tabled

MNIST = {"data": "mnist", "x": "epoch", "loss": "train"}


DIGITS = {"data": "digits", "x": "seconds", "loss": "test"}


def test_rows_have_their_own_data_axis_loss_and_models():
    tasks = [("mnist", "mlp_small", "sgd"), ("mnist", "mlp", "adam"), ("digits", "mlp", "adam")]
    rows = tabled(*(cell("none", 0, [2.0 + number, 1.0], task=task) for number, task in enumerate(tasks)))
    rows["test_loss"] += 10
    (small, large), (empty, digits) = np.reshape(draw_rows(rows, "title", rows=[MNIST, DIGITS]).axes, (2, 2))
    assert small.get_title() == "SGD, small MLP"
    assert [axes.get_xlabel() for axes in (small, large, digits)] == ["epoch", "epoch", "seconds"]
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


def test_each_value_of_a_key_among_the_lines_is_a_line_and_one_that_is_not_tuned_is_said_by_panel():
    def labelled(rates, cells):
        return [(labels | ({"rates": rates} if rates else {}), rows) for labels, rows in cells]

    adam = ("mnist", "mlp", "adam")
    plain = [cell("none", 0, [2.0, 1.0], task=task) for task in (("mnist", "mlp", "sgd"), adam)]
    tuned = [cell("none", 0, [2.0, 0.5], task=("mnist", "mlp", "sgd"))]
    reason = "data=mnist model=mlp optimizer=adam teleport=none is not tuned; tune it by python scripts/tune.py"
    missing = [({**plain[1][0], "rates": "tuned"}, pd.DataFrame({"reason": [reason]}))]
    rows = tabled(*labelled("", plain), *labelled("tuned", tuned), *missing)
    with pytest.raises(UserError, match="several runs with the same values"):
        draw_rows(rows, "title", rows=[MNIST])
    figure = draw_rows(rows, "title", rows=[MNIST], lines=["rates"])
    sgd, adam_panel = figure.axes
    assert sorted(line.get_ydata()[-1] for line in sgd.lines) == [0.5, 1.0]
    assert [line.get_ydata()[-1] for line in adam_panel.lines] == [1.0]
    assert "no teleport, tuned rate: not tuned yet (Adam);" in said(figure)
    assert "scripts/tune.py" not in said(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["no teleport", "no teleport, tuned rate"]


def test_the_legend_names_only_lines_that_have_data():
    plain = cell("none", 0, [2.0, 1.0], task=("mnist", "mlp", "sgd"))
    reason = "data=mnist model=mlp optimizer=sgd teleport=none is not tuned; tune it by python scripts/tune.py"
    missing = ({**plain[0], "rates": "tuned"}, pd.DataFrame({"reason": [reason]}))
    figure = draw_rows(tabled(({**plain[0], "rates": ""}, plain[1]), missing), "title", rows=[MNIST], lines=["rates"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["no teleport"]


def test_rows_of_one_optimizer_are_beside_each_other():
    table = tabled(cell("none", 0, [2.0, 1.0]))
    for count, columns in ((3, 3), (4, 2), (5, 3)):
        figure = draw_rows(table, "title", rows=[DIGITS] * count)
        figure.draw_without_rendering()
        shown = [axes for axes in figure.axes if axes.axison]
        assert len(shown) == count
        assert len({round(axes.bbox.x0) for axes in shown}) == columns
        assert all(axes.get_ylabel() == "Digits\ntest loss" for axes in shown)


def test_a_title_is_not_repeated_below_and_all_epochs_are_ticks():
    cells = [
        cell("none", 0, [2.0 - 0.1 * step for step in range(6)], task=("mnist", "mlp", name))
        for name in ("sgd", "adam")
    ]
    figure = draw_rows(tabled(*cells), "title", rows=[MNIST, MNIST | {"loss": "test"}])
    assert [axes.get_title() for axes in figure.axes] == ["SGD, MLP", "Adam, MLP", "", ""]
    for axes in figure.axes:
        assert {0, 1, 2, 3, 4, 5} <= set(axes.get_xticks())


def test_what_is_above_a_panel_is_said_with_its_loss():
    labels, rows = cell("none", 0, [2.3, 1.0, 0.3], task=("mnist", "mlp", "sgd"))
    rows["test_loss"] = [27.0, 2.2, 2.0]
    figure = draw_rows(tabled((labels, rows)), "title", rows=[MNIST, MNIST | {"loss": "test"}])
    assert "the loss before the first step is above the panel (test loss);" in said(figure)
