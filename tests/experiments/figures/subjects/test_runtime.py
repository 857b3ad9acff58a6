"""The benchmark's runtimes along each axis."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from experiments.benchmarks import runtime
from experiments.errors import UserError
from experiments.figures.subjects.runtime import draw_runtime, measure_runtime
from tests.experiments.figures.tables import said, tabled


def benchmark_table(folder, machine):
    """A teleport takes 2 seconds times samples times the square of the width, on every method."""
    cases = [(width, 10, 2, 1, 1) for width in (1, 2, 4)] + [(2, samples, 2, 1, 1) for samples in (20, 40)]
    rows = pd.DataFrame(cases, columns=runtime.AXES).assign(method="symmetry 2024", repeats=3, steps_taken=1)
    rows["seconds"] = rows["fastest"] = rows["slowest"] = 2.0 * rows["samples"] * rows["width"] ** 2
    rows = rows.assign(null_dimensions=0, hardware=machine, threads=1, torch="2.0")
    rows[runtime.COLUMNS].to_csv(folder / f"runtime-{machine}.csv", index=False)


def test_runtimes_are_those_of_the_benchmark_along_each_axis_that_it_varies(tmp_path):
    for machine in ("chip", "disc", "tiny-smoke"):
        benchmark_table(tmp_path, machine)
    table = measure_runtime(None, folder=str(tmp_path))
    assert list(table["hardware"].unique()) == ["chip, 1 thread, torch 2.0", "disc, 1 thread, torch 2.0"]
    chip = table[table["hardware"].str.startswith("chip")]
    exponents = chip.groupby("axis")["exponent"].first()
    assert exponents.to_dict() == {"width": pytest.approx(2), "samples": pytest.approx(1)}
    assert chip.loc[chip["axis"] == "width", ["value", "seconds"]].to_numpy().tolist() == [[1, 20], [2, 80], [4, 320]]
    assert (chip[["width", "samples"]] == [2, 10]).all(axis=None)


def test_the_exponent_of_a_runtime_leaves_out_what_took_no_step(tmp_path):
    benchmark_table(tmp_path, "chip")
    path = tmp_path / "runtime-chip.csv"
    rows = pd.read_csv(path)
    rows.loc[rows["width"] == 4, ["seconds", "steps_taken"]] = 0.1, 0
    rows.to_csv(path, index=False)
    table = measure_runtime(None, folder=str(tmp_path))
    of_width = table[table["axis"] == "width"]
    assert of_width["exponent"].tolist() == pytest.approx([2, 2, 2])
    assert of_width["steps_taken"].tolist() == [1, 1, 0]


def test_runtimes_need_a_table_of_the_benchmark(tmp_path):
    with pytest.raises(UserError, match=r"no 'runtime-\*.csv' in .*scripts/benchmark.py runtime"):
        measure_runtime(None, folder=str(tmp_path))
    (tmp_path / "runtime-chip.csv").write_text("method,width\na,3\n")
    with pytest.raises(UserError, match="lacks the column 'samples'"):
        measure_runtime(None, folder=str(tmp_path))


def test_a_runtime_without_steps_is_hollow_and_what_has_no_exponent_says_so():
    values = pd.DataFrame({"axis": "samples", "value": [100, 1000], "steps_taken": [64, 0], "exponent": 0.25})
    values = values.assign(seconds=[1.0, 2.0], fastest=[0.9, 1.5], slowest=[1.5, 2.5], null_dimensions=3)
    base = {"width": 8, "samples": 100, "layers": 2, "batches": 4, "steps": 5}
    cells = [({}, values.assign(method="nullspace", hardware="a chip", **base).assign(exponent=math.nan))]
    cells.append(({}, values.assign(method="symmetry 2024", hardware="a chip", **base, steps_taken=64)))
    (panel,) = (figure := draw_runtime(tabled(*cells), "title")).axes
    powers = panel.get_legend()
    assert [text.get_text() for text in powers.get_texts()] == ["n$^{?}$", "n$^{0.25}$"]
    looks = [(line.get_color(), line.get_linestyle()) for line in powers.get_lines()]
    assert looks == [(line.get_color(), line.get_linestyle()) for line in figure.legends[0].get_lines()]
    assert "d = 8, n = 100, \N{SCRIPT SMALL L} = 2, b = 4, k = 5" in said(figure)
    faces = [line.get_markerfacecolor() for line in panel.lines if line.get_marker() == "o"]
    assert faces.count("white") == 1
