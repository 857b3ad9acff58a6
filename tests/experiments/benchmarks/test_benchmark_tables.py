"""What holds for the table of every subject: its columns, cases and methods, rounds, machine, lines and summary."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from experiments.benchmarks import (
    SUBJECTS,
    against,
    basis,
    change_of_basis,
    drift,
    epoch,
    landing,
    memory,
    nullspace_step,
    positions,
    runtime,
    start,
    subject,
    symmetries,
    training,
)
from experiments.benchmarks import teleport as whole_teleport
from experiments.benchmarks.common import MACHINE, machine
from tests.experiments.benchmarks.conftest import CPU, REPEATS

METHODS = {
    "against": [against.BEFORE, against.NOW],
    "basis": [basis.STREAMED, basis.DOUBLE, basis.SINGLE],
    "change_of_basis": [change_of_basis.TOUCH, change_of_basis.TELEPORT, change_of_basis.CAPTURE],
    "drift": list(drift.ways(2.0)) * len(drift.GROWTH),
    "epoch": [epoch.EPOCH, epoch.EVENT, epoch.ALL_STEPS, epoch.AUTO],
    "landing": list(landing.METHODS) * len(landing.CAPS),
    "memory": list(memory.METHODS),
    "nullspace_step": [nullspace_step.GRADIENT, *nullspace_step.METHODS],
    "positions": [positions.GRADIENT, *positions.THRESHOLDS],
    "runtime": list(runtime.METHODS),
    "start": [start.HELP, start.MISTAKE],
    "symmetries": [symmetries.METHOD],
    "teleport": list(whole_teleport.METHODS),
    "training": [training.SUITE, training.WHOLE, training.BARE, training.LOADER],
}
"""Subject -> the methods of each case, in order."""

ONE_ROUND = {"memory", "symmetries"}  # a fresh process per row, or many rows
DIFFERENCES = {"nullspace_step"}  # whose fastest and slowest are differences of rounds


def test_every_subject_has_its_methods_here():
    assert METHODS.keys() == SUBJECTS.keys()


@pytest.mark.parametrize("name", SUBJECTS)
def test_one_row_per_case_and_method(name, smoke_table):
    table, methods = smoke_table(name), METHODS[name]
    assert set(table.columns) == set(subject(name).COLUMNS)
    if name == "training":  # without a model there is no whole run
        without = table[table.model == training.NO_MODEL]
        assert without.method.tolist() == [method for method in methods if method != training.WHOLE]
        table = table[table.model != training.NO_MODEL]
    cases = 1 if name in ("start", "training") else len(subject(name).SMOKE)
    assert table.method.tolist() == methods * cases


@pytest.mark.parametrize("name", SUBJECTS)
def test_rounds_and_machine_are_recorded(name, smoke_table):
    table = smoke_table(name)
    assert (table.repeats == (1 if name in ONE_ROUND else REPEATS)).all()
    assert table[list(MACHINE)].drop_duplicates().to_dict("records") == [machine(CPU)]
    if name not in DIFFERENCES:
        assert (table.fastest > 0).all()
        assert (table.fastest <= table.seconds).all()
        assert (table.seconds <= table.slowest).all()


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_row_is_one_line_and_the_summary_is_tables(name, smoke_table):
    module, table = subject(name), smoke_table(name)
    for row in table.to_dict("records"):
        assert row["method"] in module.line(row)
        assert "\n" not in module.line(row)
    summary = module.summary(table)
    assert summary
    assert all(isinstance(each, pd.DataFrame) for each in summary.values())


@pytest.mark.parametrize("name", SUBJECTS)
def test_measuring_leaves_no_determinism_behind(name, smoke_table):
    smoke_table(name)
    assert not torch.are_deterministic_algorithms_enabled()
