"""Loss and gradient norm along the steps of a teleport, for several thresholds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.errors import UserError
from experiments.figures.rebuilt import rebuild
from experiments.figures.runs import expand
from experiments.figures.subjects.error_control import draw_error_control, measure_error_control, threshold_name
from tests.experiments.figures.conftest import conf
from tests.experiments.figures.tables import said, tabled


def test_error_grows_as_the_threshold_falls(trained_run):
    table = measure_error_control(trained_run, thresholds=[1.0, 0.99, 0.9], steps=3, lr=0.5)
    assert table.groupby("threshold")["step"].apply(list).tolist() == [[0, 1, 2, 3]] * 3
    start = table[table["step"] == 0]
    assert start["loss"].nunique() == start["gradient_norm"].nunique() == 1  # the same model each time
    end = table[table["step"] == 3].set_index("threshold")
    error = (end["loss"] / start["loss"].iloc[0] - 1).abs()
    assert error[1.0] < 1e-6 < error[0.9]
    assert end["gradient_norm"][1.0] > start["gradient_norm"].iloc[0]
    assert end["gradient_norm"][0.9] > end["gradient_norm"][1.0]


def test_error_control_starts_from_the_models_own_loss(trained_run):
    rebuilt = rebuild(trained_run)
    rebuilt.load_trained()
    with torch.no_grad():
        expected = rebuilt.loss_fn(rebuilt.model, rebuilt.teleport_batch(25)).item()
    table = measure_error_control(trained_run, thresholds=[1.0], steps=1)
    assert table["loss"].iloc[0] == pytest.approx(expected, rel=1e-6)


def test_error_control_needs_a_null_space_teleport(trained_run, tmp_path):
    with conf():
        (other,) = expand([{"data": "digits", "teleport": "none"}], [f"machine.runs={tmp_path}"])
    other.folder = trained_run.folder
    with pytest.raises(UserError, match="needs a run with teleport=nullspace, not none"):
        measure_error_control(other, thresholds=[1.0], steps=1)


def test_error_control_shows_each_threshold():
    trace = pd.DataFrame({"step": [0, 1], "loss": [2.0, 2.002], "gradient_norm": [1.0, 1.5]})
    cells = [({"data": "smnist"}, trace.assign(threshold=threshold)) for threshold in (1.0, 0.95)]
    figure = draw_error_control(tabled(*cells), "title")
    change, growth, cost = figure.axes
    for lines in (change.lines[:2], growth.lines[:2], cost.lines[:2]):
        assert len({line.get_linewidth() for line in lines}) == 2  # where they coincide both are seen
    assert change.lines[0].get_ydata()[1] == pytest.approx(0.001)
    for line in growth.lines:
        np.testing.assert_allclose(line.get_data(), [[1], [0.5]])
    np.testing.assert_allclose(cost.lines[0].get_data(), [[0.5], [0.001]])
    assert [axes.get_yscale() for axes in figure.axes] == ["log"] * 3
    assert "before: loss 2, norm 1" in said(figure)


@pytest.mark.parametrize(
    ("threshold", "name"),
    [(1.0, "1 (numerical rank)"), (0.9999999, "1 - 1e-7"), (0.9999, "0.9999"), (0.95, "0.95")],
)
def test_thresholds_are_named_by_what_tells_them_apart(threshold, name):
    assert threshold_name(threshold) == name
