"""Loss barriers: closed forms of quadratics, real runs, and the picture."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from experiments.data.embedded import NoiseSplit
from experiments.errors import UserError
from experiments.figures.rebuilt import RebuiltRun
from experiments.figures.subjects.barriers import along_line, distance, draw_barriers, excess, measure_barriers
from experiments.tasks import Spec, Task
from tests.experiments.figures.tables import FAILED, said, tabled

ALPHAS = np.linspace(0, 1, 9)


def test_a_quadratic_has_its_barrier_in_the_middle():
    """c x (1 - x) above a line: the barrier of a concave parabola is c / 4, of a convex one 0."""
    for c in (3.0, -3.0):
        found = excess(ALPHAS, 0.7 + 2 * ALPHAS + c * ALPHAS * (1 - ALPHAS))
        assert found == pytest.approx(c * ALPHAS * (1 - ALPHAS), abs=1e-15)
        assert found.max() == pytest.approx(max(c / 4, 0), abs=1e-15)


def regression(seed):
    torch.manual_seed(seed)
    return nn.Linear(3, 1).double()


def test_networks_that_are_linear_in_their_parameters_have_no_barrier_and_sag_by_their_distance():
    """The squared error along the line is convex: excess = -x (1 - x) mean((f_B - f_A)^2)."""
    torch.manual_seed(0)
    inputs, targets = torch.randn(40, 3).double(), torch.randn(40, 1).double()
    split = NoiseSplit(inputs, targets)
    task = Task("regression", Spec("image", (3,), 1), split, split, mse_loss, "mse")
    first, second = regression(1), regression(2)
    rebuilt = RebuiltRun(None, None, task, first, torch.device("cpu"))
    rows = along_line(rebuilt, first, second, ALPHAS, samples=30)
    apart = (second(inputs[:30]) - first(inputs[:30])).square().mean().item()
    for split_name in ("train", "test"):
        found = rows[rows["split"] == split_name]
        assert found["excess"].to_numpy() == pytest.approx(-ALPHAS * (1 - ALPHAS) * apart, abs=1e-14)
    assert "accuracy" not in rows


def test_distance_is_relative_to_the_first_network():
    first, second = regression(1), regression(1)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.mul_(1.25)
    assert distance(first, second) == pytest.approx(0.25)


def test_lines_between_real_runs(small_figure):
    control, other, teleported = small_figure
    options = {"points": 5, "samples": 50, "other_seed": 10}
    assert measure_barriers(other, **options).empty  # only the end of a line
    found = {run.labels["teleport"]: measure_barriers(run, **options) for run in (control, teleported)}
    for rows in found.values():
        assert rows.groupby("split").size().to_dict() == {"train": 5, "test": 5}
        assert rows.loc[rows["alpha"].isin([0, 1]), "excess"].abs().max() < 1e-7
    at_start = [rows.loc[rows["alpha"] == 1, "loss"].iloc[0] for rows in (found["none"], found["nullspace"])]
    assert at_start[0] != at_start[1]
    assert found["none"]["distance"].iloc[0] > 1 > found["nullspace"]["distance"].iloc[0]  # another initialisation


def cells(teleport, height, seeds=3):
    for seed in range(seeds):
        labels = {"data": "mnist", "model": "mlp", "optimizer": "sgd", "teleport": teleport, "seed": seed}
        frames = [
            pd.DataFrame({"alpha": ALPHAS, "split": split, "excess": (height + seed) * 4 * ALPHAS * (1 - ALPHAS)})
            for split in ("train", "test")
        ]
        yield labels, pd.concat(frames, ignore_index=True)


def test_the_picture_shows_the_barriers_of_each_method():
    table = tabled(*cells("none", 5.0), *cells("nullspace", 1.0))
    picture = draw_barriers(table, "title")
    train, _, dots = picture.axes
    curves = [line.get_ydata() for line in train.lines if len(line.get_ydata()) == len(ALPHAS)]
    assert [max(curve) for curve in curves] == [6.0, 2.0]  # the mean over seeds 0, 1 and 2
    heights = [line.get_ydata()[0] for line in dots.lines if line.get_marker() == "o"]
    assert heights == [6.0, 6.0, 2.0, 2.0]
    assert "3 pairs of networks" in said(picture)


def test_a_failed_run_is_told_and_another_method_refused():
    labels = {"data": "mnist", "model": "mlp", "optimizer": "sgd", "teleport": "random", "seed": 0}
    assert "it is not here" in said(draw_barriers(tabled(*cells("none", 5.0), (labels, FAILED)), "title"))
    with pytest.raises(UserError, match="'symmetry'"):
        draw_barriers(tabled(*cells("symmetry", 1.0)), "title")
