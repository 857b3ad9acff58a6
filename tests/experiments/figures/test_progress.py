"""How far the runs of a figure are: estimates from the runs made in this call."""

from __future__ import annotations

import logging

import pytest

from experiments.figures.build import build
from experiments.figures.progress import Progress, in_words
from tests.experiments.figures.conftest import conf, places

MLP, CNN = ("mnist", "mlp", "none"), ("cifar10", "cnn", "none")


def test_nothing_is_estimated_before_a_run_is_made():
    progress = Progress([MLP, MLP], [False, False])
    assert progress.begin(0) == "run 1 of 2"
    assert progress.seconds_left() is None


def test_runs_of_a_data_set_and_model_take_as_long_as_those_made():
    progress = Progress([MLP, CNN, MLP, CNN, CNN], [False] * 5)
    progress.end(0, 10.0)
    assert progress.seconds_left() == 40.0  # the others as the only one that was made
    progress.end(1, 100.0)
    assert progress.seconds_left() == 10 + 100 + 100
    assert progress.begin(2) == "run 3 of 5, about 4 minutes left"
    progress.end(2, 20.0)
    assert progress.seconds_left() == 200
    progress.end(3, 300.0)
    assert progress.seconds_left() == 200  # the mean of 100 and 300
    assert progress.end(4, 1.0) == "5 of 5 runs are done"


def test_a_teleport_is_estimated_by_its_own_runs_where_there_are_some():
    keys = [("mnist", "mlp", name) for name in ("none", "nullspace", "none", "nullspace", "other")]
    progress = Progress(keys, [False] * 5)
    progress.end(0, 10.0)
    progress.end(1, 50.0)
    assert progress.seconds_left() == 10 + 50 + 30


def test_runs_that_are_there_count_and_take_no_time():
    progress = Progress([MLP] * 60, [True] * 15 + [False] * 45, jobs=1)
    assert progress.end(3, 0.01) == ""
    progress.end(15, 30.0)
    assert progress.begin(16) == "run 17 of 60, about 22 minutes left"


def test_runs_side_by_side_share_the_time():
    one, two = (Progress([MLP] * 5, [False] * 5, jobs=jobs) for jobs in (1, 2))
    for progress in (one, two):
        progress.end(0, 60.0)
    assert two.seconds_left() == one.seconds_left() / 2


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 second"),
        (8, "8 seconds"),
        (43, "40 seconds"),
        (100, "2 minutes"),
        (1200, "20 minutes"),
        (9000, "2.5 hours"),
    ],
)
def test_estimates_are_told_no_finer_than_they_are(seconds, words):
    assert in_words(seconds) == words


def test_a_figure_tells_it_and_says_nothing_of_runs_that_are_there(made, tmp_path, caplog):
    """``made`` has twelve runs; with another seed four are missing."""
    from tests.experiments.figures.conftest import DIGITS, FASTER

    runs = [f"machine.runs={made.parents[2] / 'runs'}", f"machine.results={tmp_path}"]
    with conf(), caplog.at_level(logging.INFO, logger="experiments"):
        build([*DIGITS, *FASTER, *runs])
    lines = [record.getMessage().strip() for record in caplog.records]
    assert "12 of 12 runs are there already" in lines
    assert not [line for line in lines if line.startswith("run ")]
    caplog.clear()
    with conf(), caplog.at_level(logging.INFO, logger="experiments"):
        build([*DIGITS, *FASTER, "seed=7", *places(tmp_path)])
    told = [record.getMessage().strip().partition(":")[0] for record in caplog.records]
    told = [line for line in told if line.startswith("run ")]
    assert told[0] == "run 1 of 4"
    assert all(line.startswith(f"run {number} of 4, about ") for number, line in enumerate(told[1:], 2))
