"""The table of a sweep against numbers that are worked out by hand."""

from __future__ import annotations

import csv
import json
import math
import statistics

import pytest

from experiments.run.sweep import Outcome
from experiments.run.sweep_table import means_over_seeds, metric_to_minimise, report, table, table_of_means

SUMMARY = {"train_loss": 0.5, "test_loss": 0.75, "metric": "accuracy", "test_metric": 0.9, "seconds": 1.23456}


@pytest.fixture
def outcome(tmp_path):
    def write(*overrides: str, error: str = "", **summary) -> Outcome:
        if error:
            return Outcome(list(overrides), error=error)
        folder = tmp_path / "-".join(overrides)
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps(SUMMARY | summary))
        return Outcome(list(overrides), folder=str(folder))

    return write


def test_a_table_has_a_line_for_each_run_and_says_why_one_failed(outcome):
    good = outcome("seed=0")
    lines = table([good, outcome("seed=none_such", error="that is no seed")]).splitlines()
    head, first, second = lines
    assert head.split()[:3] == ["overrides", "train", "loss"]
    assert first.split() == ["seed=0", "0.5", "0.75", "accuracy", "0.9", "1.235", "-", good.folder]
    assert second.split()[:6] == ["seed=none_such", "-", "-", "-", "-", "failed"]
    assert second.endswith("that is no seed")
    assert first.index(good.folder) == second.index("that is no seed") == head.index("folder or error")


def test_overrides_that_all_runs_share_are_said_once(outcome):
    text = table([outcome("data=digits", f"seed={seed}", "scale=smoke") for seed in (0, 1)])
    first, _, *rows = text.splitlines()
    assert first == "all with: data=digits scale=smoke"
    assert [row.split()[0] for row in rows] == ["seed=0", "seed=1"]
    assert text.count("digits ") == 1


def test_a_divergence_and_a_teleport_without_effect_are_remarks(outcome):
    runs = [
        outcome("seed=0", diverged=True, diverged_step=30, test_loss=None),
        outcome("seed=1", no_op=True, events=2),
        outcome("seed=2", events=0, never_due=3),
    ]
    first, second, third = table(runs).splitlines()[1:]
    assert "diverged at step 30" in first
    assert "teleports changed nothing" in second
    assert "teleport never due" in third


def test_means_are_over_the_seeds_of_a_setting(outcome, tmp_path):
    losses = {"sgd": [0.1, 0.4, 0.7], "adam": [1.0, 2.0]}
    runs = [
        outcome(f"optimizer={name}", f"seed={seed}", test_loss=loss)
        for name, each in losses.items()
        for seed, loss in enumerate(each)
    ]
    failed = outcome("optimizer=adam", "seed=2", error="no")
    rows = means_over_seeds([*runs, failed])
    assert [(row["overrides"], row["runs"]) for row in rows] == [("optimizer=sgd", 3), ("optimizer=adam", 2)]
    for row, each in zip(rows, losses.values(), strict=True):
        assert row["test_loss_mean"] == pytest.approx(sum(each) / len(each))
        assert row["test_loss_std"] == pytest.approx(statistics.stdev(each))
    assert "optimizer=sgd" in table_of_means([*runs, failed])
    assert "0.4 ± 0.3" in table_of_means([*runs, failed])
    assert report([*runs, failed], tmp_path / "sweeps" / "now.csv") == 1
    with (tmp_path / "sweeps" / "now-seeds.csv").open() as file:
        assert [float(row["test_loss_mean"]) for row in csv.DictReader(file)] == pytest.approx([0.4, 1.5])
    with (tmp_path / "sweeps" / "now.csv").open() as file:
        assert [row["error"] for row in csv.DictReader(file)] == [*[""] * 5, "no"]


def test_a_run_that_a_sweeper_chose_twice_is_one_run(outcome):
    again, other = outcome("optimizer.lr=0.1", "seed=0"), outcome("optimizer.lr=0.1", "seed=1")
    assert means_over_seeds([again, again]) == []
    assert [row["runs"] for row in means_over_seeds([again, other, again])] == [2]


def test_one_seed_has_no_mean_and_a_divergence_no_finite_one(outcome):
    assert table_of_means([outcome("optimizer=sgd", "seed=0"), outcome("optimizer=adam", "seed=0")]) == ""
    assert "not finite" in table_of_means([outcome("seed=1"), outcome("seed=2", test_loss=None, diverged_step=1)])


def test_the_objective_is_the_test_loss_and_infinite_for_what_is_no_result(outcome, tmp_path):
    assert metric_to_minimise(outcome("seed=0", diverged=False)) == 0.75
    assert metric_to_minimise(outcome("seed=1", diverged=True)) == math.inf
    assert metric_to_minimise(outcome("seed=2", test_loss=None)) == math.inf
    assert metric_to_minimise(Outcome([], error="failed")) == math.inf
    assert metric_to_minimise(Outcome([], folder=str(tmp_path))) is None
