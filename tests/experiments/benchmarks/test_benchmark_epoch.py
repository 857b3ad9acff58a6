"""An event against an epoch: the suite's own settings, all of its steps, and an epoch scaled from some."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from experiments.benchmarks.common import Settings
from experiments.benchmarks.epoch import AIMS, ALL_STEPS, AUTO, EPOCH, EVENT, FULL, measure, summary
from experiments.benchmarks.suite import Prepared, configuration

CPU = torch.device("cpu")


def test_the_share_is_of_the_epochs_seconds(measured):
    seconds = measured.set_index("method").seconds
    assert measured.share.tolist() == pytest.approx((seconds / seconds[EPOCH]).tolist())
    assert next(iter(summary(measured).values())).share.tolist() == measured.share.tolist()[1:]


def test_an_epoch_has_the_whole_split_and_is_scaled_from_the_steps_that_were_timed(monkeypatch):
    monkeypatch.setattr(Prepared, "steps", lambda self, count: lambda: 0.25 * count)  # a quarter of a second each
    rows = pd.DataFrame(measure(Settings(1, True, CPU))).set_index("method")
    assert rows.epoch_steps[EPOCH] == math.ceil(1437 / 32)  # of digits' 1797 images
    assert rows.seconds[EPOCH] == pytest.approx(0.25 * rows.epoch_steps[EPOCH])


def test_the_event_ends_at_the_cap_and_the_other_takes_all_steps(measured):
    rows = measured.set_index("method")
    assert rows.cap[EVENT] > 0
    assert math.isnan(rows.cap[ALL_STEPS])
    assert 0 < rows.steps_taken[EVENT] <= rows.steps_taken[ALL_STEPS] == rows.batches[EVENT] * rows.steps[EVENT]


def test_full_cases_are_events_of_the_published_size():
    for case in FULL:
        config = configuration([f"model={case.model}", f"data={case.data}", "teleport=nullspace", "scale=paper"], CPU)
        assert (config.teleport.batches, config.teleport.steps) == (8, 8)
        assert config.data.train_samples is None


def test_each_aim_reads_its_pair_and_its_event():
    cells = [("mlp", "mnist", EVENT, 0.04), ("mlp", "mnist", ALL_STEPS, 0.2), ("mlp", "mnist", EPOCH, 1.0)]
    cells += [("cnn", "cifar10", EVENT, 0.08), ("mlp_small", "digits", ALL_STEPS, 9.0), ("mlp", "mnist", AUTO, 0.03)]
    cells += [("transformer", "smnist", AUTO, 0.07)]
    table = pd.DataFrame(cells, columns=["model", "data", "method", "share"])
    reached = [0.04, 0.2, 0.08, math.nan, 0.03, math.nan, math.nan, math.nan, 0.07]
    assert [aim.figure(table) for aim in AIMS] == pytest.approx(reached, nan_ok=True)
    assert [aim.limit for aim in AIMS] == [0.05, 0.05, 0.1, 0.1, 0.05, 0.05, 0.1, 0.1, 0.1]
