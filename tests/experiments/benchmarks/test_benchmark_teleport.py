"""Whole teleports: all take their steps where there are null dimensions, and aims read the case they are for."""

from __future__ import annotations

import math

import pandas as pd

from experiments.benchmarks.teleport import AIMS, REFERENCE, SMOKE, summary


def test_all_take_all_steps_on_few_samples_and_the_null_space_none_on_many(measured):
    few, many = (measured[measured.samples == samples].set_index("method") for samples in (8, 64))
    assert (few.steps_taken == few.batches * few.steps).all()
    idle = many.index[many.steps_taken == 0].tolist()
    assert idle == [REFERENCE, "nullspace each", "nullspace cap"]  # a split batch has its first layer left


def test_a_split_batch_frees_the_first_layer_too(measured):
    free = measured[measured.samples == 8].set_index("method").null_dimensions
    assert free["nullspace split"] == free[REFERENCE] + 784 - 8


def test_ratios_are_to_the_null_space(measured):
    first, steps = summary(measured).values()
    assert first[REFERENCE].tolist() == [1.0] * len(SMOKE)
    assert steps["symmetry 2022"].tolist() == [4.0] * len(SMOKE)


def test_the_aims_are_of_200_samples_where_all_steps_were_taken():
    case = {"width": 1024, "layers": 2, "batches": 8, "steps": 8, "steps_taken": 64}
    cells = [(REFERENCE, 200, 2.0), ("symmetry 2022", 200, 30.0), ("symmetry 2024", 200, 50.0)]
    cells += [(REFERENCE, 2000, 1.0), ("symmetry 2022", 2000, 900.0), ("symmetry 2024", 2000, 900.0)]
    table = pd.DataFrame(cells, columns=["method", "samples", "seconds"]).assign(**case)
    assert [aim.figure(table) for aim in AIMS] == [15.0, 25.0]
    idle = table.assign(steps_taken=table.steps_taken.where(table.method != REFERENCE, 0))
    assert all(math.isnan(aim.figure(idle)) for aim in AIMS)
