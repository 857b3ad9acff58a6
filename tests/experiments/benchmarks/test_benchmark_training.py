"""The three loops that are compared train the same model, and the suite's computes what the one by hand does."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from experiments.benchmarks.common import Settings
from experiments.benchmarks.training import BARE, COLUMNS, LOADER, NO_MODEL, SMOKE, SUITE, WHOLE, measure, summary


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    return pd.DataFrame(measure(Settings(1, True, torch.device("cpu"))))


def test_a_row_a_case_and_method(measured):
    assert set(measured.columns) == set(COLUMNS)
    assert measured[measured.model == NO_MODEL].method.tolist() == [SUITE, BARE, LOADER]
    assert measured[measured.model != NO_MODEL].method.tolist() == [SUITE, WHOLE, BARE, LOADER]
    samples = measured.steps * measured.batch_size / measured.seconds
    assert samples.tolist() == pytest.approx(measured.samples_a_second.tolist())


def test_the_suite_trains_bit_for_bit_as_the_loop_by_hand(measured):
    trained = measured[measured.model != NO_MODEL].set_index("method").parameter_sum
    assert trained[SUITE] == trained[BARE] != 0
    assert trained[LOADER] != trained[BARE]  # it has a shuffle of its own


def test_the_determinism_of_a_run_does_not_outlast_it(measured):
    assert not torch.are_deterministic_algorithms_enabled()


def test_ratios_come_first_and_are_to_the_loop_by_hand(measured):
    first, *_, last = summary(measured).values()
    assert first[BARE].tolist() == [1.0] * len(SMOKE)
    assert last[LOADER].tolist() == [1.0] * len(SMOKE)
