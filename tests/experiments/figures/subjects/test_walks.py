"""Ascent trajectories of three methods, against the closed form of the network's loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from experiments.figures.subjects.walks import START, TARGET, draw_walks, loss_fn, loss_of, measure_walks, network
from experiments.figures.table import gather, parse, to_csv


@pytest.fixture(scope="module")
def rows():
    return parse(to_csv(gather([({}, measure_walks(None, rhos=[0.1, 0.5]))], "quick", 1)), "it")


def of(rows, method):
    return rows[rows["method"] == method].reset_index(drop=True)


def test_all_trajectories_begin_at_the_same_point_and_raise_the_gradient_norm(rows):
    starts = rows[rows["step"] == 0]
    assert len(starts) == 4
    for name, value in START.items():
        assert (starts[name] == value).all()
    for _, trajectory in rows.groupby(["method", "rho"], dropna=False):
        assert len(trajectory) >= 4
        assert (trajectory["gradient_norm"].diff().dropna() > 0).all()
        assert 1.9 < trajectory["gradient_norm"].iloc[-1] / trajectory["gradient_norm"].iloc[0] <= 2.0


def test_the_group_action_stays_on_a_hyperbola(rows):
    trajectory = of(rows, "symmetry")
    np.testing.assert_allclose(trajectory["v"] * trajectory["a"], START["v"] * START["a"], rtol=1e-12)
    assert (trajectory["b"] == START["b"]).all()
    assert trajectory["a"].nunique() == len(trajectory)


def test_the_null_space_is_a_line_along_which_the_first_layer_stays(rows):
    trajectory = of(rows, "nullspace")
    assert (trajectory["v"] == START["v"]).all()
    np.testing.assert_allclose(
        trajectory["a"] * START["v"] + trajectory["b"], START["a"] * START["v"] + START["b"], rtol=1e-12
    )


def test_the_linearised_level_set_drifts_and_more_so_in_longer_steps(rows):
    trajectories = of(rows, "levelset")
    drift = {
        rho: (trajectory["loss"] / trajectory["loss"].iloc[0] - 1).abs().max()
        for rho, trajectory in trajectories.groupby("rho")
    }
    exact = rows[rows["method"] != "levelset"]
    assert (exact["loss"] / rows["loss"].iloc[0] - 1).abs().max() < 1e-12 < 1e-4 < drift[0.1] < drift[0.5]


def test_losses_and_norms_are_those_of_the_closed_form(rows):
    np.testing.assert_allclose(loss_of(rows["v"], rows["a"], rows["b"], TARGET), rows["loss"], rtol=1e-12)
    error = 2 * (rows["v"] * rows["a"] + rows["b"] - TARGET)
    free = rows["a"] ** 2 + rows["v"] ** 2 + (rows["method"] == "nullspace")
    np.testing.assert_allclose(error.abs() * free**0.5, rows["gradient_norm"], rtol=1e-9)


def test_the_level_sets_are_those_of_the_network():
    model, batch = network(), (torch.ones(1, 1).double(), torch.full((1, 1), TARGET).double())
    for place in ((0.6, 1.2, 0.3), (0.1, 3.0, -1.0), (2.0, -0.5, 0.7)):
        for parameter, value in zip(model.parameters(), place, strict=True):
            parameter.data.fill_(value)
        assert loss_of(*place, TARGET) == pytest.approx(float(loss_fn(model, batch).detach()), rel=1e-12)


def test_the_picture_has_every_walk(rows):
    figure = draw_walks(rows, "title")
    *planes, cost = figure.axes
    assert [len(axes.lines) for axes in planes] == [1, 2, 1]
    assert len(cost.lines) == 4
    np.testing.assert_array_equal(planes[2].lines[0].get_xdata(), of(rows, "nullspace")["b"])
