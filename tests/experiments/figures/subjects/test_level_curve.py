"""Inter-landscape teleports preserve the loss and move the weights."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from experiments.figures.subjects.level_curve import draw_level_curve, level_curve, measure_level_curve
from teleport import ChangeOfBasis
from tests.experiments.figures.tables import VGG, tabled


@pytest.mark.parametrize("act", [nn.ReLU, nn.ELU])
def test_each_teleport_starts_from_the_same_weights_and_ends_on_the_same_level(act):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 20), act(), nn.Linear(20, 20), act(), nn.Linear(20, 3)).double().eval()
    batch = torch.randn(10, 5).double(), torch.randn(10, 3).double()
    kept = copy.deepcopy(model.state_dict())
    changes = [ChangeOfBasis(range=0.9, sampling="inter", activations="teleport", seed=seed) for seed in (0, 1, 0)]
    first, second, third = level_curve(model, batch, lambda m, b: (m(b[0]) - b[1]).square().mean(), changes)
    assert all(torch.equal(model.state_dict()[key], kept[key]) for key in kept)
    assert first == third
    for one in (first, second):
        assert one.loss_before == (model(batch[0]) - batch[1]).square().mean().item()
        assert one.loss_after == pytest.approx(one.loss_before, rel=1e-12)
        # Most signs of the hidden weights are turned in half of the cases, so that the way is about as long as |W|.
        assert 0.5 < one.weight_difference / torch.cat([p.flatten() for p in model.parameters()]).abs().mean() < 5
    assert first.weight_difference != second.weight_difference


def test_teleports_keep_the_loss_to_rounding_and_move_the_weights(initial_run):
    rows = measure_level_curve(initial_run, range=0.9, teleports=5, samples=32)
    change = (rows["loss_after"] / rows["loss_before"] - 1).abs().groupby(rows["precision"]).max()
    assert change["float64"] < 1e-13
    assert change["float32"] < 1e-5
    assert (rows["weight_difference"] > 0.5 * rows["weight_magnitude"]).all()
    way = rows.pivot(index="number", columns="precision", values="weight_difference")
    np.testing.assert_allclose(way["float32"], way["float64"], rtol=1e-5)  # the same teleports
    assert way["float64"].nunique() == 5


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


def test_changes_of_nothing_are_at_ticks_that_say_0():
    before = 1.0
    frames = [
        pd.DataFrame(
            {"precision": name, "number": [0, 1], "loss_before": before, "loss_after": [before, before + least]}
        )
        for name, least in (("float32", 1e-7), ("float64", 1e-16))
    ]
    rows = pd.concat(frames).assign(weight_magnitude=0.5, weight_difference=1.0)
    points = draw_level_curve(tabled((VGG, rows)), "title").axes[0]
    named = dict(zip(points.get_yticks(), [tick.get_text() for tick in points.get_yticklabels()], strict=True))
    for line in points.lines:
        assert named[line.get_ydata()[0]] == f"0 in {line.get_label()}"
