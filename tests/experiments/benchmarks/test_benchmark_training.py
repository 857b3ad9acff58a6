"""The three loops that are compared train the same model, and the suite's computes what the one by hand does."""

from __future__ import annotations

import pytest

from experiments.benchmarks.training import BARE, LOADER, NO_MODEL, SMOKE, SUITE, summary


def test_samples_per_second_follow_from_the_seconds(measured):
    samples = measured.steps * measured.batch_size / measured.seconds
    assert samples.tolist() == pytest.approx(measured.samples_a_second.tolist())


def test_the_suite_trains_bit_for_bit_as_the_loop_by_hand(measured):
    trained = measured[measured.model != NO_MODEL].set_index("method").parameter_sum
    assert trained[SUITE] == trained[BARE] != 0
    assert trained[LOADER] != trained[BARE]  # it has a shuffle of its own


def test_ratios_come_first_and_are_to_the_loop_by_hand(measured):
    first, *_, last = summary(measured).values()
    assert first[BARE].tolist() == [1.0] * len(SMOKE)
    assert last[LOADER].tolist() == [1.0] * len(SMOKE)
