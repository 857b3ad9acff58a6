"""Barriers between matched networks: a real pair of runs, and the picture."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.errors import UserError
from experiments.figures.subjects.matching import MATCHINGS, draw_matching, measure_matching
from tests.experiments.figures.tables import said, tabled

ALPHAS = np.linspace(0, 1, 5)


@pytest.mark.slow
def test_a_pair_of_real_runs_is_nearer_when_matched(small_figure):
    control, other, _ = small_figure
    options = {"points": 5, "samples": 50, "match_samples": 60, "other_seed": 10}
    assert measure_matching(other, **options).empty  # only the end of a line
    rows = measure_matching(control, **options)
    assert rows.groupby("matching", sort=False).size().to_dict() == dict.fromkeys(MATCHINGS, 10)
    distance = rows.groupby("matching")["distance"].first()
    assert distance["factors"] < distance["weights"] < distance["activations"] < distance["none"]
    assert rows["difference"].max() < 1e-5
    ends = rows[rows["alpha"].isin([0, 1])]
    assert ends["excess"].abs().max() < 1e-7
    spread = ends.groupby(["alpha", "split"])["loss"].agg(np.ptp)
    assert spread.max() < 1e-4  # the functions at the ends are those of the two runs, however matched


def cells(height):
    for number, matching in enumerate(MATCHINGS):
        for seed in range(3):
            labels = {"data": "mnist", "model": "mlp", "teleport": "none", "seed": seed}
            frames = [
                pd.DataFrame(
                    {"alpha": ALPHAS, "split": split, "excess": (height - number + seed) * 4 * ALPHAS * (1 - ALPHAS)}
                )
                for split in ("train", "test")
            ]
            yield labels, pd.concat(frames, ignore_index=True).assign(matching=matching)


def test_the_picture_shows_the_barrier_of_each_matching():
    picture = draw_matching(tabled(*cells(5.0)), "title")
    dots = picture.axes[2]
    heights = [line.get_ydata()[0] for line in dots.lines if line.get_marker() == "o"]
    assert heights == [6.0, 6.0, 5.0, 5.0, 4.0, 4.0, 3.0, 3.0]  # training and test of each, the mean over the seeds
    assert "3 pairs of networks" in said(picture)


def test_another_matching_is_refused():
    table = tabled(*cells(5.0)).replace({"matching": {"factors": "gradients"}})
    with pytest.raises(UserError, match="'gradients'"):
        draw_matching(table, "title")


def test_sizes_of_networks_are_written_without_brackets():
    sized = [(labels | {"model.widths": "[16, 8]"}, rows) for labels, rows in cells(5.0)]
    assert draw_matching(tabled(*sized), "title").axes[0].get_ylabel().startswith("MNIST, MLP 16-8\n")
