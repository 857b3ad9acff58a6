"""The run time table: who does all the work it is timed for, and what is computed from it."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch

from experiments.benchmark import COLUMNS, FULL, METHODS, SMOKE, Case, base_of, measure, ratios, slopes, slug


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    return pd.DataFrame(measure(SMOKE, 2, torch.device("cpu")))


def test_a_row_a_case_and_method(measured):
    assert set(measured.columns) == set(COLUMNS)
    assert len(measured) == len(SMOKE) * len(METHODS)
    assert (measured.fastest <= measured.seconds).all()
    assert (measured.seconds <= measured.slowest).all()
    assert (measured.fastest > 0).all()


def test_nobody_wins_by_doing_nothing(measured):
    full = measured[measured.method != "nullspace"]
    assert (full.steps_taken == full.batches * full.steps).all()
    exact = measured[measured.method == "nullspace"]
    idle = exact.null_dimensions == 0
    assert idle.tolist() == (exact.width < exact.samples).tolist()  # 20 samples span 17 dimensions and not 33
    assert (exact.steps_taken[idle] == 0).all()
    assert (exact.steps_taken[~idle] == exact.batches[~idle] * exact.steps[~idle]).all()


def test_ratios_are_to_the_null_space_that_takes_all_steps(measured):
    first = ratios(measured).iloc[0]
    seconds = measured[:5].set_index("method").seconds
    assert first["nullspace 0.999"] == 1
    assert first["symmetry 2024"] == pytest.approx(seconds["symmetry 2024"] / seconds["nullspace 0.999"])


def test_slopes_are_exponents():
    base = Case()
    cases = [replace(base, **{axis: value}) for axis in ("width", "steps") for value in (64, 128, 256)]
    seconds = [3 * case.width**2 * case.steps**0.5 * case.samples for case in cases]
    table = pd.DataFrame([{**vars(case), "method": "a"} for case in cases]).assign(seconds=seconds)
    found = slopes(table, base).set_index("axis").slope
    assert found.to_dict() == pytest.approx({"width": 2.0, "steps": 0.5})


def test_the_full_cases_cross_in_the_settings_of_the_paper():
    assert base_of(FULL) == Case() == Case(512, 200, 2, 8, 8)
    assert Case() in FULL
    assert len(set(FULL)) == len(FULL)


def test_a_machines_name_fits_a_file():
    assert slug("Intel(R) Xeon(R) CPU @ 2.60GHz") == "intel-r-xeon-r-cpu-2-60ghz"
    assert slug("") == "unknown"
