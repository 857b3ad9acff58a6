"""Trajectories over test functions, from runs to table and picture."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.errors import UserError
from experiments.figures.runs import execute, expand
from experiments.figures.subjects.trajectory import draw_trajectory, measure_trajectory
from experiments.figures.table import gather, parse, to_csv
from experiments.functions import FUNCTIONS
from tests.experiments.figures.conftest import conf


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ways")
    grid = {"experiment": ["symmetry/booth", "symmetry/ellipse"], "teleport": ["none", "orbit"]}
    with conf():
        runs = expand([grid, {"data": "digits", "model": "mlp"}], [f"machine.runs={folder}", "training.max_steps=10"])
    execute(runs)
    return runs


@pytest.fixture(scope="module")
def rows(runs):
    cells = [(run.labels, measure_trajectory(run)) for run in runs[:4]]
    return parse(to_csv(gather(cells, "quick", 1)), "it")


def test_the_way_has_every_step_and_both_sides_of_the_teleport(rows):
    plain, teleported = (rows[(rows["data"] == "booth") & (rows["teleport"] == name)] for name in ("none", "orbit"))
    assert plain["step"].tolist() == list(range(11))
    assert teleported["step"].tolist() == [0, 1, 2, 3, 4, 4, 4, 5, 6, 7, 8, 9, 10]
    assert teleported["moment"].tolist()[4:7] == ["evaluation", "before teleport", "after teleport"]
    assert (plain[["x", "y"]].iloc[0] == [5.0, -5.0]).all()
    for name in ("booth", "ellipse"):
        own = rows[rows["data"] == name]
        np.testing.assert_allclose(FUNCTIONS[name](own["x"], own["y"]), own["loss"], rtol=1e-12)


def test_steps_are_those_of_gradient_descent_by_hand(rows):
    """Booth's gradient is (10 x + 8 y - 34, 8 x + 10 y - 38)."""
    way = rows[(rows["data"] == "booth") & (rows["teleport"] == "none")][["x", "y"]].to_numpy()
    gradients = way @ np.array([[10.0, 8.0], [8.0, 10.0]]) - np.array([34.0, 38.0])
    np.testing.assert_allclose(way[1:], (way - 0.08 * gradients)[:-1], rtol=1e-12)


def test_the_picture_shows_ways_teleports_and_values(rows):
    figure = draw_trajectory(rows, "title")
    assert [axes.get_title() for axes in figure.axes[:2]] == ["Booth", "Ellipse"]
    for axes in figure.axes[2:]:
        plain, teleported, *_ = [line for line in axes.lines if len(line.get_xdata()) > 1]
        assert len(plain.get_xdata()) == 11
        assert teleported.get_ydata()[-1] < 1e-3 * plain.get_ydata()[-1]
    jumps = [line for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert len(jumps) == 1
    event = rows[(rows["data"] == "booth") & rows["moment"].str.contains("teleport")]
    np.testing.assert_array_equal(np.column_stack(jumps[0].get_data()), event[["x", "y"]])


def test_a_run_that_blows_up_does_not_spoil_the_picture(rows):
    blown = rows[(rows["data"] == "booth") & (rows["teleport"] == "none")].tail(3).assign(teleport="levelset", step=11)
    blown[["x", "y", "loss"]] = [[1e9, 1e9, 1e18], [np.inf, np.inf, np.inf], [np.nan] * 3]
    plain, spoilt = (draw_trajectory(table, "title").axes for table in (rows, pd.concat([rows, blown])))
    for one, other in zip(plain, spoilt, strict=True):
        assert one.get_xlim() == pytest.approx(other.get_xlim())
        assert one.get_ylim() == pytest.approx(other.get_ylim())


def test_only_a_point_has_a_way(runs):
    with pytest.raises(UserError, match="needs a run with model=point"):
        measure_trajectory(runs[4])


def test_only_test_functions_are_drawn(rows):
    with pytest.raises(UserError, match=r"unknown test function .* 'bootj' \(did you mean 'booth'\?\)"):
        draw_trajectory(rows.assign(data="bootj"), "title")
