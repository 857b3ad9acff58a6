"""An ascent along the orbit, then training: of a real network, and the picture."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.errors import UserError
from experiments.figures.subjects.ascent import LINES, draw_ascent, measure_ascent
from tests.experiments.figures.tables import said, tabled


@pytest.mark.slow
def test_a_move_raises_the_norm_and_the_training_starts_at_the_same_loss(small_figure):
    control, *_ = small_figure
    rows = measure_ascent(control, rates=[0.01, 0.1], steps=4, every=2, samples=20, growth=1.5)
    assert rows.groupby(["moved_by", "rate"]).size().to_dict() == {(name, r): 3 for name in LINES for r in (0.01, 0.1)}
    told = rows.groupby("moved_by")[["growth", "reach"]].first()
    assert told.loc["scaling", "growth"] == pytest.approx(1.5, rel=0.02)
    assert told.loc["all", "reach"] > 2
    assert told.loc["none", "growth"] == 1
    start = rows[rows["step"] == 0]["loss"]
    assert np.ptp(start) < 1e-5
    last = rows[rows["step"] == 4].groupby(["moved_by", "rate"])["loss"].first()
    assert last["scaling", 0.1] < last["none", 0.1] < start.iloc[0]


def cells():
    for seed in range(3):
        labels = {"data": "smnist", "model": "transformer", "teleport": "none", "seed": seed}
        frames = [
            pd.DataFrame({"step": [0, 20], "loss": [2.0, 1.0 + number], "growth": 2.0, "reach": number + 1.0}).assign(
                moved_by=name, rate=rate, difference=0.0
            )
            for number, name in enumerate(LINES)
            for rate in (0.1, 0.2)
        ]
        yield labels, pd.concat(frames, ignore_index=True)


def test_the_picture_has_a_panel_per_rate_and_one_for_the_reach():
    picture = draw_ascent(tabled(*cells()), "title")
    assert [axes.get_title() for axes in picture.axes] == ["rate 0.1", "rate 0.2", "growth of the norm without a cap"]
    assert [line.get_ydata()[-1] for line in picture.axes[1].lines] == [1.0, 2.0, 3.0, 4.0]
    assert [line.get_ydata()[0] for line in picture.axes[2].lines if line.get_marker() == "o"] == [2.0, 3.0, 4.0]
    assert "3 seeds" in said(picture)


def test_another_group_is_refused():
    with pytest.raises(UserError, match="'rotations'"):
        draw_ascent(tabled(*cells()).replace({"moved_by": {"all": "rotations"}}), "title")
