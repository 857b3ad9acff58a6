"""Aims are met, missed or not measured, and each reads the figure that its subject's table has."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from experiments import files
from experiments.benchmarks import SUBJECTS, change_of_basis, nullspace_step, subject, training
from experiments.benchmarks.aims import MET, MISSED, NOT_MEASURED, Aim, rows
from experiments.benchmarks.aims_table import COLUMNS, aims_of, as_markdown, write_aims


def reached(module, table: pd.DataFrame) -> list[float]:
    return [aim.figure(table) for aim in module.AIMS]


def test_an_aim_is_met_up_to_its_limit_and_missed_beyond():
    below = Aim("", "<=", 2, lambda table: 0.0)
    assert [below.state(figure) for figure in (1.9, 2.0, 2.1, math.nan)] == [MET, MET, MISSED, NOT_MEASURED]
    above = Aim("", ">=", 5, lambda table: 0.0)
    assert [above.state(figure) for figure in (4.9, 5.0, 5.1, math.nan)] == [MISSED, MET, MET, NOT_MEASURED]


def test_rows_have_all_the_cells_that_are_asked_for():
    table = pd.DataFrame([("a", 1, 3.0), ("a", 2, 4.0), ("b", 1, 5.0)], columns=["method", "size", "seconds"])
    assert rows(table, method="a", size=2).seconds.tolist() == [4.0]
    assert rows(table, method="b").seconds.tolist() == [5.0]
    assert math.isnan(rows(table, method="b", size=2).seconds.max())


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_table_without_the_rows_leaves_an_aim_unmeasured(name):
    module = subject(name)
    empty = pd.DataFrame([], columns=module.COLUMNS)
    some = pd.DataFrame([("another", "mlp32", 1.0)], columns=["method", "model", "seconds"])
    assert all(math.isnan(aim.figure(some.reindex(columns=module.COLUMNS))) for aim in module.AIMS)
    assert all(math.isnan(aim.figure(empty)) for aim in module.AIMS)


def test_a_change_of_basis_is_judged_by_its_worst_network():
    cells = [("touch", "vgg16", 1.0), ("teleport", "vgg16", 2.0), ("capture", "vgg16", 9.0)]
    cells += [("touch", "densenet121", 2.0), ("teleport", "densenet121", 5.0), ("capture", "densenet121", 3.0)]
    table = pd.DataFrame([(*cell, 1.0) for cell in cells], columns=["method", "model", "seconds", "width"])
    assert reached(change_of_basis, table) == [2.5, 3.0]


def test_a_step_that_was_not_taken_meets_no_aim():
    few, many = nullspace_step.FEW, nullspace_step.MANY
    cells = [
        ("mlp 1024-1024", "once", many, 1.25),
        ("mlp 1024-1024", "each", many, 3.0),
        ("cnn 32-64-128", "once", 0, 0.1),
    ]
    cells += [("transformer 2 x 64", "once", few, 0.1), ("transformer 4 x 256", "once", many, 2.5)]
    table = pd.DataFrame(cells, columns=["model", "method", "steps_taken", "evaluations"])
    assert reached(nullspace_step, table) == pytest.approx([1.25, math.nan, math.nan, 2.5], nan_ok=True)


def test_the_training_loop_is_judged_by_its_own_clock():
    seconds = {training.SUITE: 1.01, training.WHOLE: 3.0, training.BARE: 1.0, training.LOADER: 6.0}
    cells = [
        (method, model, 10, 32, taken * size, 320 / (taken * size))
        for model, size in (("mlp", 2.0), ("mlp_small", 0.5))
        for method, taken in seconds.items()
    ]
    table = pd.DataFrame(cells, columns=["method", "model", "steps", "batch_size", "seconds", "samples_a_second"])
    assert reached(training, table) == pytest.approx([1.01, 6 / 1.01, 6 / 1.01])


@pytest.fixture
def results(tmp_path):
    """A machine with one table, a smoke measurement, and a table of a version with other columns."""
    cells = {"model": "mlp500", "width": 1.0, "parameters": 9}
    both = [{**cells, "method": "touch", "seconds": 1.0}, {**cells, "method": "teleport", "seconds": 4.0}]
    for machine in ("fast", "fast-smoke"):
        files.write_csv(tmp_path / f"change_of_basis-{machine}.csv", change_of_basis.COLUMNS, both)
    files.write_csv(tmp_path / "training-fast.csv", ["method", "seconds"], [{"method": "suite", "seconds": 1}])
    entry = {"change_of_basis": {"command": "python scripts/benchmark.py change_of_basis --threads 7"}}
    (tmp_path / "fast.json").write_text(json.dumps(entry))
    return tmp_path


def test_the_aims_of_a_machine_are_read_out_of_its_tables(results):
    table = aims_of("fast", results)
    assert len(table) == sum(len(subject(name).AIMS) for name in SUBJECTS)
    first, *others = rows(table, subject="change_of_basis").to_dict("records")
    assert (first["limit"], first["reached"], first["state"]) == ("<= 3", 4.0, MISSED)
    assert first["command"].endswith("--threads 7")
    assert [other["state"] for other in others] == [NOT_MEASURED]  # DenseNet121 is not in the table
    assert set(rows(table, subject="training").state) == {NOT_MEASURED}


def test_they_are_written_as_a_table_and_as_a_page(results):
    assert list(write_aims(results, smoke=False)) == ["fast"]
    table = pd.read_csv(results / "aims-fast.csv")
    assert table.columns.tolist() == COLUMNS
    assert table.reached.dropna().tolist() == [4.0]
    page = (results / "README.md").read_text()
    assert "## fast\n" in page
    assert "| <= 3 times | 4 | missed | `python scripts/benchmark.py change_of_basis --threads 7` |" in page
    assert write_aims(results, smoke=False).keys() == {"fast"}  # its own table is none of a subject


def test_a_smoke_measurement_is_not_on_the_page(results):
    assert list(write_aims(results, smoke=True)) == ["fast-smoke"]
    assert (results / "aims-fast-smoke.csv").is_file()
    assert not (results / "README.md").exists()


def test_the_committed_aims_are_those_of_the_committed_tables(tmp_path):
    committed = Path(__file__).parents[3] / "results" / "benchmark"
    for path in [*committed.glob("*.csv"), *committed.glob("*.json")]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert write_aims(tmp_path, smoke=False)
    for path in [committed / "README.md", *committed.glob("aims-*.csv")]:
        assert (tmp_path / path.name).read_text() == path.read_text(), "run: python scripts/benchmark.py aims"


def test_a_page_without_machines_says_how_it_is_made():
    assert "python scripts/benchmark.py aims" in as_markdown({})
