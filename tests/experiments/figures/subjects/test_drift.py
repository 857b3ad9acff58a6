"""Drift along the orbit: of a real network, and the picture."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.errors import UserError
from experiments.figures.subjects.drift import LINES, draw_drift, measure_drift
from tests.experiments.figures.tables import said, tabled

RATES = {"sgd": 0.05, "momentum": 0.05, "adamw": 0.001}


@pytest.mark.slow
def test_gradient_descent_alone_has_no_step_along_the_orbit(small_figure):
    control, *_ = small_figure
    rows = measure_drift(control, rates=RATES, steps=3, samples=20)
    assert rows.groupby("optimizer_here", sort=False)["step"].apply(list).to_dict() == {
        name: [1, 2, 3] for name in RATES
    }
    last = rows[rows["step"] == 3].set_index("optimizer_here")
    assert last.loc["sgd", "tangent"] < 1e-13
    assert (last.loc[["momentum", "adamw"], "tangent"] > 1e-5).all()
    first = rows[rows["step"] == 1].set_index("optimizer_here")
    assert first["loss"].nunique() == 1  # all start at the same weights with the same batch
    assert first.loc["momentum", "tangent"] < 1e-13  # and the first step of momentum is the gradient
    with pytest.raises(UserError, match="'newton'"):
        measure_drift(control, rates={"newton": 0.1}, steps=1, samples=20)


def cells():
    steps = np.arange(1, 4)
    for seed in range(3):
        labels = {"data": "mnist", "model": "mlp", "teleport": "none", "seed": seed}
        frames = [
            pd.DataFrame(
                {"step": steps, "tangent": (seed + 1) * 10.0**-number, "total_drift": 1e-3 * steps, "imbalance": 0.5}
            ).assign(optimizer_here=name, random=0.2)
            for number, name in enumerate(LINES)
        ]
        yield labels, pd.concat(frames, ignore_index=True)


def test_the_picture_shows_the_mean_of_each_optimizer():
    picture = draw_drift(tabled(*cells()), "title")
    heights = [line.get_ydata()[0] for line in picture.axes[0].lines]
    assert heights == pytest.approx([2.0, 0.2, 0.02, 0.002, 0.2])  # the last one is the random direction
    assert "3 seeds" in said(picture)


def test_another_optimizer_is_refused():
    with pytest.raises(UserError, match="'newton'"):
        draw_drift(tabled(*cells()).replace({"optimizer_here": {"muon": "newton"}}), "title")
