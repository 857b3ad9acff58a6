"""Trainings from elements of one orbit: of a real network, and the picture."""

from __future__ import annotations

import pandas as pd
import pytest

from experiments.errors import UserError
from experiments.figures.subjects.starts import FLOOR, LINES, OPTIMIZERS, draw_starts, measure_starts
from tests.experiments.figures.tables import said, tabled


@pytest.mark.slow
def test_a_permuted_start_trains_alike_and_a_balanced_one_does_not(small_figure):
    control, *_ = small_figure
    rates = {"sgd": 0.05, "adamw": 0.001}
    rows = measure_starts(control, rates=rates, steps=4, every=2, samples=20)
    assert set(rows["start"]) == {"original", "permuted", "balanced"}  # nothing in a perceptron may be rotated
    assert rows.groupby(["start", "optimizer_here"])["step"].apply(list).to_dict() == {
        (start, name): [0, 2, 4] for start in ("original", "permuted", "balanced") for name in rates
    }
    first, last = (rows[rows["step"] == step].set_index(["start", "optimizer_here"])["deviation"] for step in (0, 4))
    assert first.max() < 1e-12
    assert last["permuted"].max() < 1e-9 < 1e-5 < last["balanced"].min()
    assert (rows[rows["start"] != "original"]["moved"] > 0.01).all()
    with pytest.raises(UserError, match="'newton'"):
        measure_starts(control, rates={"newton": 0.1}, steps=1, every=1, samples=20)


def cells():
    for seed in range(3):
        labels = {"data": "mnist", "model": "mlp", "teleport": "none", "seed": seed}
        frames = [
            pd.DataFrame({"step": [0, 5], "loss": 1.0, "deviation": [0.0, number * 1e-3]}).assign(
                start=start, optimizer_here=name, moved=1.0
            )
            for number, start in enumerate(LINES)
            for name in OPTIMIZERS
        ]
        yield labels, pd.concat(frames, ignore_index=True)


def test_the_picture_has_a_panel_per_optimizer_and_a_line_per_other_start():
    picture = draw_starts(tabled(*cells()).replace({"deviation": {1e-3: 0.0}}), "title")
    assert [axes.get_title() for axes in picture.axes] == list(OPTIMIZERS.values())
    for axes in picture.axes:
        assert [line.get_ydata()[-1] for line in axes.lines] == pytest.approx([FLOOR, 2e-3, 3e-3, 4e-3])
    assert "3 seeds" in said(picture)


def test_another_start_is_refused():
    with pytest.raises(UserError, match="'mirrored'"):
        draw_starts(tabled(*cells()).replace({"start": {"heads": "mirrored"}}), "title")
